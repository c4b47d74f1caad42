"""Linear maps from the vectors of one encoder to those of another, in closed form, fitted to texts that both encoded.

A map is one matrix `(new dim, old dim + 1)`: an old vector with a one behind it, times the matrix, stands for the new
vector; and a new query times it is the query of the old vectors with what to add to their scores, because
q·(Ax + b) = (Aᵀq)·x + q·b. So no old vector has to be written anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from emb.similarity import Vectors

AS_THEY_ARE = "as they are"
STRENGTHS = (0.01, 0.1, 0.3)  # of the ridge, in shares of the mean variance of a dimension


@dataclass(frozen=True)
class LinearMap:
    """`kind` is what it was fitted by, `matrix` `(new dim, old dim + 1)` float32."""

    kind: str
    matrix: Vectors

    def apply(self, old: Vectors) -> Vectors:
        """What stands for the new vectors `(texts, new dim)` of old ones `(texts, old dim)`."""
        return np.asarray(old @ self.matrix[:, :-1].T + self.matrix[:, -1], np.float32)


@dataclass
class Moments:
    """All that a closed form needs to know of pairs of vectors: sums, which add up over parts of them."""

    count: int
    old: Vectors  # (old dim,)
    new: Vectors  # (new dim,)
    squares: Vectors  # (old dim, old dim)
    products: Vectors  # (new dim, old dim)

    @classmethod
    def of(cls, old: Vectors, new: Vectors) -> Moments:
        """Of vectors `(texts, old dim)` and `(texts, new dim)`."""
        x, y = old.astype(np.float64), new.astype(np.float64)
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, y.T @ x)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.old + other.old,
            self.new + other.new,
            self.squares + other.squares,
            self.products + other.products,
        )

    def __sub__(self, other: Moments) -> Moments:
        return self + Moments(-other.count, -other.old, -other.new, -other.squares, -other.products)


def fit_maps(moments: Moments) -> Iterator[LinearMap]:
    """Every candidate: the vectors as they are, a rotation with one scale, and ridges of several strengths."""
    yield as_they_are(*moments.products.shape)
    yield procrustes(moments)
    yield from ridges(moments)


def as_they_are(new: int, old: int) -> LinearMap:
    """Old vectors taken for new ones: of the dims that both have."""
    return LinearMap(AS_THEY_ARE, np.eye(new, old + 1, dtype=np.float32) * (np.arange(old + 1) < old))


def procrustes(moments: Moments) -> LinearMap:
    """The rotation (of other dims, the part of one) and scale with the least squared error (Schönemann 1966)."""
    left, energy, right = np.linalg.svd(moments.products, full_matrices=False)
    scale = energy.sum() / max(float(np.trace(moments.squares)), 1e-30)
    return LinearMap("procrustes", _with_offset(scale * (left @ right), np.zeros(len(left))))


def ridges(moments: Moments) -> Iterator[LinearMap]:
    """Least squares with an offset and a penalty on the matrix, one for each of `STRENGTHS`."""
    count, mean, goal = moments.count, moments.old / moments.count, moments.new / moments.count
    spread = moments.squares - count * np.outer(mean, mean)
    products = moments.products - count * np.outer(goal, mean)
    energy, axes = np.linalg.eigh(spread)
    energy, turned = np.maximum(energy, 0), products @ axes
    for strength in STRENGTHS:
        matrix = (turned / (energy + max(strength * energy.mean(), 1e-12))) @ axes.T
        yield LinearMap(f"ridge {strength:g}", _with_offset(matrix, goal - matrix @ mean))


def _with_offset(matrix: Vectors, offset: Vectors) -> Vectors:
    return np.concatenate([matrix, offset[:, None]], axis=1).astype(np.float32)
