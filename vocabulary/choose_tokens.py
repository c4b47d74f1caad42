"""Which tokens make up a smaller table: by counts, by influence, or by whichever leaves whole texts nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emb.model.embedding_model import EmbeddingModel
from emb.similarity import cosines
from emb.vocabulary.influence import kept_by_counts, kept_by_influence
from emb.vocabulary.reading import Reading, rows_by, vectors_of
from emb.vocabulary.readings import Readings
from emb.vocabulary.surgery import table_of

AUTO, COUNTS, INFLUENCE = "auto", "counts", "influence"
WAYS: Mapping[str, Callable[[EmbeddingModel, Readings, int], list[int]]] = {
    INFLUENCE: lambda model, readings, rows: kept_by_influence(table_of(model), readings, rows),
    COUNTS: lambda model, readings, rows: kept_by_counts(readings, rows),
}


@dataclass(frozen=True)
class WayScore:
    """Mean cosine of texts that are read with the tokens of one `way` to what they were."""

    way: str
    cosine: float


@dataclass(frozen=True)
class Choice:
    """The former ids of the tokens that stay, ascending; the `way` they were chosen, and how it compares, if it was."""

    kept: list[int]
    way: str
    scores: Sequence[WayScore] = ()


def choose(model: EmbeddingModel, readings: Readings, rows: int, way: str, dev: Reading | None) -> Choice:
    """Exactly `rows` tokens, chosen by one of `WAYS`, or for "auto" by that which leaves the texts of `dev` nearest to
    what they were there. Nothing is changed.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
    """
    if way != AUTO:
        return Choice(WAYS[way](model, readings, rows), way)
    assert dev is not None, "there is nothing to compare by"
    kept = {name: found(model, readings, rows) for name, found in WAYS.items()}
    scores = [WayScore(name, _cosine(model, readings, ids, dev)) for name, ids in kept.items()]
    best = max(scores, key=lambda each: each.cosine).way
    return Choice(kept[best], best, scores)


def _cosine(model: EmbeddingModel, readings: Readings, kept: Sequence[int], dev: Reading) -> float:
    """Texts are read with the tokens `kept` alone, and their rows are looked up in the whole table."""
    ids = np.asarray(kept)
    rows = [ids[row] for row in rows_by(model, readings.tokenizer(kept), dev.texts)]
    return float(cosines(dev.vectors, vectors_of(model, rows)).mean())
