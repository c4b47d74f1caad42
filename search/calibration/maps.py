"""The map itself: for each query a sigmoid whose slope and offset follow from the query's features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from emb.search.calibration.features import features_of
from emb.similarity import Vectors

_FAR = 3.0  # standard deviations beyond which a feature says no more: no query was seen there
STEEP = 5.0  # of a query's own slope, as a logarithm


@dataclass(frozen=True)
class Map:
    """Relevance `sigmoid(a·s + b)` of a score s, where `a = exp(slope + slopes·f) > 0` and `b = offset + offsets·f`.

    The features f of a query are those that `uses` names, s and f both as distances from their `mean` in units of
    their `spread`. Without features every query has the same sigmoid: Platt's scaling.

    Attributes:
        score_mean, score_spread: of the scores that it was fitted to.
        means, spreads: of the features, `(features,)`.
        slopes, offsets: `(features,)`.
    """

    uses: tuple[str, ...]
    score_mean: float
    score_spread: float
    means: list[float]
    spreads: list[float]
    slope: float
    offset: float
    slopes: list[float]
    offsets: list[float]

    def logits(self, vectors: Vectors, scores: Vectors) -> Vectors:
        """`a·s + b` of scores `(queries, hits)` of queries with vectors `(queries, dim)`."""
        known = self.standardised(vectors, scores)
        steepness = np.exp(self.slope + np.clip(known @ np.asarray(self.slopes), -STEEP, STEEP))
        base = self.offset + known @ np.asarray(self.offsets)
        return np.asarray(steepness[:, None] * self.distances(scores) + base[:, None])

    def relevance(self, vectors: Vectors, scores: Vectors) -> Vectors:
        """The same as a relevance, 0 to 1."""
        return np.asarray((1 + np.tanh(self.logits(vectors, scores) / 2)) / 2)  # a sigmoid that never overflows

    def standardised(self, vectors: Vectors, scores: Vectors) -> Vectors:
        """Features `(queries, features)` as the map has them."""
        found = (features_of(self.uses, vectors, scores) - np.asarray(self.means)) / np.asarray(self.spreads)
        return np.asarray(np.clip(found, -_FAR, _FAR))

    def distances(self, scores: Vectors) -> Vectors:
        """Scores as the map has them."""
        return np.asarray((np.asarray(scores, np.float64) - self.score_mean) / self.score_spread)

    def stretched(self, factor: float, shift: float) -> Map:
        """The map whose logits are `factor` times these, plus `shift`; the order of all pairs stays."""
        return replace(
            self,
            slope=self.slope + float(np.log(factor)),
            offset=factor * self.offset + shift,
            offsets=[factor * each for each in self.offsets],
        )


def blank(uses: tuple[str, ...], vectors: Vectors, scores: Vectors) -> Map:
    """A map that knows the means and spreads of these queries, and nothing of relevance yet."""
    found = features_of(uses, vectors, scores)
    nothing = [0.0] * found.shape[1]
    return Map(
        uses,
        float(scores.mean()),
        float(scores.std()) or 1.0,
        found.mean(axis=0).tolist(),
        np.where(found.std(axis=0) > 0, found.std(axis=0), 1.0).tolist(),
        0.0,
        0.0,
        nothing,
        list(nothing),
    )
