"""Which map is kept: each judges queries that it was not fitted to, and the best order of all pairs wins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emb.errors import DataError
from emb.search.calibration.features import SCORES, VECTOR
from emb.search.calibration.figures import Figures, Threshold, figures, thresholds
from emb.search.calibration.fit import fit_map
from emb.search.calibration.folds import folds_of, said, splits
from emb.search.calibration.maps import Map
from emb.search.calibration.pairs import Pairs
from emb.similarity import Vectors

PLATT = "platt"
CANDIDATES: dict[str, tuple[str, ...]] = {
    PLATT: (),
    "adapter (scores)": (SCORES,),
    "adapter (scores, vector)": (SCORES, VECTOR),
}
FEWEST = 50  # different queries that find something relevant, and something that is not


@dataclass(frozen=True)
class Chosen:
    """The map that is kept, its name, and what every candidate reached on held-out queries."""

    kind: str
    map: Map
    figures: dict[str, Figures]
    thresholds: list[Threshold]


def choose_map(pairs: Pairs) -> Chosen:
    """Fit every candidate, and keep the one with the highest average precision on held-out queries; of equals the
    first, which is Platt's scaling.

    Raises:
        DataError: too few queries have a relevant document in the head of their ranking, or an irrelevant one.
    """
    _require_enough(pairs)
    judged = {name: held_out_relevance(uses, pairs) for name, uses in CANDIDATES.items()}
    found = {name: figures(each, pairs.relevant) for name, each in judged.items()}
    kind = max(found, key=lambda name: found[name].average_precision)
    return Chosen(kind, _of_all(CANDIDATES[kind], pairs), found, thresholds(judged[kind], pairs.relevant))


def held_out_relevance(uses: tuple[str, ...], pairs: Pairs) -> Vectors:
    """Relevance `(queries, head)` of each query's best documents, by a map that did not see the query."""
    found = np.zeros((len(pairs), pairs.head))
    for split in splits(folds_of(pairs.texts)):
        fitted = fit_map(uses, pairs.only(split.fitted), pairs.only(split.stopping))
        judged = pairs.only(split.held_out)
        found[split.held_out] = fitted.relevance(judged.vectors, judged.scores)
    return found


def _of_all(uses: tuple[str, ...], pairs: Pairs) -> Map:
    """A map for all queries: those of one part say when to stop, and it is fitted to the rest."""
    folds = folds_of(pairs.texts)
    return fit_map(uses, pairs.only(np.flatnonzero(folds != 0)), pairs.only(np.flatnonzero(folds == 0)))


def _require_enough(pairs: Pairs) -> None:
    for wanted, what, hint in (
        (pairs.relevant, "a relevant", "give more judged queries, or the documents alone: queries are cut from them"),
        (~pairs.relevant, "an irrelevant", "give more documents: where all are relevant, nothing is told apart"),
    ):
        count = len({said(text) for text, some in zip(pairs.texts, list(np.any(wanted, axis=1)), strict=True) if some})
        if count < FEWEST:
            raise DataError(
                f"{count} of {len(pairs)} queries find {what} document among their first {pairs.head},"
                f" {FEWEST} are needed, no two of them the same",
                hint,
            )
