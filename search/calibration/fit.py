"""Fitting a map to judged pairs: cross-entropy with its gradient written out, minimised by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from emb.search.calibration.maps import STEEP, Map, blank
from emb.search.calibration.pairs import Pairs
from emb.similarity import Vectors

_STEPS, _PATIENCE = 200, 20
_DECAY = 1e-3  # of the squares of what sets queries apart


def fit_map(uses: tuple[str, ...], fitted: Pairs, stopping: Pairs) -> Map:
    """The map of features `uses` that tells relevant pairs of `fitted` from others, as far as it helps on `stopping`.

    First relevant and irrelevant pairs weigh as much as each other: that teaches order. Then slope and offset of all
    queries together are fitted to the pairs as they are, so that a relevance is the share of such hits that are
    relevant.
    """
    start = blank(uses, fitted.vectors, fitted.scores)
    return _to_shares(_trained(start, fitted, stopping), fitted)


def _trained(start: Map, fitted: Pairs, stopping: Pairs) -> Map:
    ours, theirs = _Sample.of(start, fitted), _Sample.of(start, stopping)
    nothing = np.zeros(2 * len(start.means) + 2)
    best = _Best(lambda found: loss_of(theirs, found), nothing)
    minimize(
        lambda found: _penalised(ours, found),
        nothing,
        jac=True,
        method="L-BFGS-B",
        callback=best.see,
        options={"maxiter": _STEPS},
    )
    slope, offset, *rest = best.found.tolist()
    count = len(start.means)
    return replace(start, slope=slope, offset=offset, slopes=rest[:count], offsets=rest[count:])


class _Best:
    """What was best on queries that are not fitted to; ends the search when they gain no more."""

    def __init__(self, loss: Callable[[Vectors], float], start: Vectors) -> None:
        self.loss, self.found, self.least, self.since = loss, start, loss(start), 0

    def see(self, found: Vectors) -> None:
        """Look at one step."""
        held = self.loss(found)
        self.since += 1
        if held < self.least:
            self.found, self.least, self.since = found.copy(), held, 0
        if self.since > _PATIENCE:
            raise StopIteration


@dataclass(frozen=True)
class _Sample:
    """Pairs as a map has them: features `(queries, features)`, distances and relevance `(queries, documents)`, and
    what each pair weighs.
    """

    features: Vectors
    distances: Vectors
    relevant: Vectors
    weight: Vectors

    @classmethod
    def of(cls, start: Map, pairs: Pairs) -> _Sample:
        """Relevant pairs have half of the weight, the others the other half."""
        relevant = pairs.relevant.astype(np.float64)
        halves = relevant / max(1.0, relevant.sum()) + (1 - relevant) / max(1.0, (1 - relevant).sum())
        known = start.standardised(pairs.vectors, pairs.scores)
        return cls(known, start.distances(pairs.scores), relevant, halves / 2)


def _penalised(sample: _Sample, found: Vectors) -> tuple[float, Vectors]:
    loss, gradient = loss_and_gradient(sample, found)
    own = np.concatenate([[0.0, 0.0], found[2:]])
    return loss + _DECAY * float(own @ own), gradient + 2 * _DECAY * own


def loss_of(sample: _Sample, found: Vectors) -> float:
    """Cross-entropy alone."""
    return loss_and_gradient(sample, found)[0]


def loss_and_gradient(sample: _Sample, found: Vectors) -> tuple[float, Vectors]:
    """Weighted cross-entropy of `sigmoid(a·s + b)`, and its gradient.

    `found` holds slope, offset, slopes and offsets (`maps.Map`), `(2 + 2·features,)`.
    """
    slopes, offsets = np.split(found[2:], 2)
    own = sample.features @ slopes
    inside = np.abs(own) < STEEP
    steepness = np.exp(found[0] + np.clip(own, -STEEP, STEEP))[:, None]
    logits = steepness * sample.distances + (found[1] + sample.features @ offsets)[:, None]
    loss, slack = cross_entropy(logits, sample.relevant, sample.weight)
    by_slope = (slack * steepness * sample.distances).sum(axis=1)
    by_offset = slack.sum(axis=1)
    parts = [[by_slope.sum(), by_offset.sum()], sample.features.T @ (by_slope * inside), sample.features.T @ by_offset]
    return loss, np.concatenate(parts)


def cross_entropy(logits: Vectors, relevant: Vectors, weight: Vectors) -> tuple[float, Vectors]:
    """The weighted sum, and its derivative by each logit."""
    loss = weight * (np.logaddexp(0, logits) - relevant * logits)
    return float(loss.sum()), weight * ((1 + np.tanh(logits / 2)) / 2 - relevant)


def _to_shares(found: Map, pairs: Pairs) -> Map:
    logits, relevant = found.logits(pairs.vectors, pairs.scores), pairs.relevant.astype(np.float64)
    weight = np.full(logits.shape, 1 / logits.size)

    def loss(stretch: Vectors) -> tuple[float, Vectors]:
        stretched = np.exp(stretch[0]) * logits
        value, slack = cross_entropy(stretched + stretch[1], relevant, weight)
        return value, np.array([(slack * stretched).sum(), slack.sum()])

    factor, shift = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return found.stretched(float(np.exp(factor)), float(shift))
