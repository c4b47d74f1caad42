"""What a relevance is worth, over the pairs of all queries together: as one threshold sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emb.search.calibration.features import DEPTH
from emb.similarity import Vectors

RECALLS = (0.5, 0.7, 0.8, 0.9)
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_BINS = 10


@dataclass(frozen=True)
class Figures:
    """Of one way to put pairs in order.

    Attributes:
        average_precision: 0 to 1.
        precision: at each recall of `RECALLS`, of the relevant documents in the heads of the rankings.
        error: expected calibration error: how far relevance is from the share that is relevant, in the mean over
            the first ten hits of each query. Over all pairs it would be small whatever the map: nearly all are
            irrelevant.
    """

    average_precision: float
    precision: dict[str, float]
    error: float


@dataclass(frozen=True)
class Threshold:
    """What hits of at least this `relevance` are: their `precision` (None where there is none), the `recall` of the
    relevant documents in the heads, and the hits left per query.
    """

    relevance: float
    precision: float | None
    recall: float
    hits: float


def figures(values: Vectors, relevant: Vectors) -> Figures:
    """Of pairs with `values` `(queries, documents)`, of which some are `relevant`; the best documents come first."""
    value, truth = values.ravel(), relevant.ravel().astype(bool)
    places = np.argsort(-value, kind="stable")
    # Equal values are taken together, by the last of them: a threshold cannot tell them apart.
    last = np.flatnonzero(np.append(np.diff(value[places]) != 0, True))
    found = truth[places].cumsum()[last]
    precisions, recalls = found / (last + 1), found / truth.sum()
    average = float((np.diff(recalls, prepend=0) * precisions).sum())
    at = {f"{each:g}": float(precisions[np.searchsorted(recalls, each - 1e-12)]) for each in RECALLS}
    return Figures(average, at, calibration_error(values[:, :DEPTH], relevant[:, :DEPTH]))


def calibration_error(relevance: Vectors, relevant: Vectors) -> float:
    """Over ten bins of relevance, the mean distance of a bin's relevance from its share of relevant pairs (Guo et al.
    2017, "On Calibration of Modern Neural Networks", eq. 3); values beyond 0 to 1 count as the nearest of both.
    """
    value, relevant = np.clip(np.asarray(relevance, np.float64), 0, 1).ravel(), relevant.ravel()
    bins = np.minimum((value * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((value[bins == each] - relevant[bins == each]).sum())) for each in range(_BINS)]
    return sum(gaps) / len(value)


def thresholds(relevance: Vectors, relevant: Vectors, levels: Sequence[float] = THRESHOLDS) -> list[Threshold]:
    """What is left of pairs `(queries, documents)` at each of `levels`."""
    return [_threshold(level, relevance >= level, relevant.astype(bool)) for level in levels]


def _threshold(level: float, kept: Vectors, relevant: Vectors) -> Threshold:
    right, count = int((kept & relevant).sum()), int(kept.sum())
    return Threshold(level, right / count if count else None, right / int(relevant.sum()), count / len(kept))
