"""How documents are cut to fewer dims, learned from queries: what a cut query finds is what the whole one finds.

A rotation treats both sides alike, and 128 of a teacher's dims then lose what tells near documents apart. Here queries
stay as they are cut, and documents go through a matrix of their own, which takes from all of their dims. It is fitted
like a student's order of documents: the KL divergence from the softmax of the whole query's scores over the documents
that it finds first (as in arXiv 2306.11550).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emb.search.index.candidates import Rows
from emb.search.index.space import Space
from emb.similarity import Vectors, highest, unit

_FIRST = 100  # documents whose order is learned, of each query
_TEMPERATURE = 0.05
_BATCH, _STEPS, _RATE = 256, 600, 1e-3
_HELD_OUT = 1000  # queries at most, and a tenth of them
_FADING = (0.9, 0.999)  # of Adam's two means
_LEAST = 1e-12  # a length, and a root of a mean square
_BLOCK = 1024


@dataclass(frozen=True)
class LearnedCut:
    """A matrix `(dim, encoder's dim)` for documents, and the mean share of the ten documents of held-out whole queries
    that cut queries find: `alike` with both sides cut in the same way, `learned` with documents behind the matrix.
    """

    matrix: Vectors
    alike: float
    learned: float


def learn_cut(queries: Vectors, documents: Vectors, space: Space, seed: int = 0) -> LearnedCut:
    """Learn it from an encoder's vectors of queries `(queries, encoder's dim)`, ten at least, for documents
    `(documents, encoder's dim)`.

    `space` is the one that queries are cut in; vectors in it have length 1.
    """
    random = np.random.default_rng(seed)
    queries = queries[random.permutation(len(queries))]
    count = min(_HELD_OUT, len(queries) // 10)
    held_out, asked = queries[:count], queries[count:]
    whole = unit(documents)
    matrix = _descended(space.apply(asked), *_order(unit(asked), whole), whole, _start(space, whole.shape[1]), random)
    alike, learned = (
        _found(unit(held_out) @ whole.T, space.apply(held_out) @ each.T)
        for each in (space.apply(documents), unit(whole @ matrix.T))
    )
    return LearnedCut(matrix, alike, learned)


def _start(space: Space, dim: int) -> Vectors:
    """The matrix that queries are cut by."""
    turn = np.eye(dim, dtype=np.float32) if space.rotation is None else space.rotation
    return np.array(turn[: space.dim], np.float32)


def _order(queries: Vectors, documents: Vectors) -> tuple[Rows, Vectors]:
    """The rows of the documents that each query finds first `(queries, first)`, and their share in its softmax."""
    found, shares = [], []
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ documents.T
        first = highest(scores, min(_FIRST, len(documents)))
        found.append(first)
        shares.append(_softmax(np.take_along_axis(scores, first, 1)))
    return np.concatenate(found), np.concatenate(shares)


def _descended(
    queries: Vectors, first: Rows, wanted: Vectors, documents: Vectors, matrix: Vectors, random: np.random.Generator
) -> Vectors:
    """The matrix after 600 steps of Adam (arXiv 1412.6980), the rate falling along a cosine."""
    mean, square = np.zeros_like(matrix), np.zeros_like(matrix)
    for step in range(1, _STEPS + 1):
        rows = random.integers(len(queries), size=min(_BATCH, len(queries)))
        gradient = _gradient(queries[rows], first[rows], wanted[rows], documents, matrix)
        mean = _FADING[0] * mean + (1 - _FADING[0]) * gradient
        square = _FADING[1] * square + (1 - _FADING[1]) * gradient**2
        rate = _RATE * (1 + np.cos(np.pi * (step - 1) / _STEPS)) / 2
        root = np.sqrt(square / (1 - _FADING[1] ** step)) + _LEAST
        matrix = (matrix - rate * mean / (1 - _FADING[0] ** step) / root).astype(np.float32)
    return matrix


def _gradient(queries: Vectors, first: Rows, wanted: Vectors, documents: Vectors, matrix: Vectors) -> Vectors:
    """Of the mean KL divergence from `wanted` to the softmax of the cut scores, by the matrix."""
    rows, places = np.unique(first, return_inverse=True)
    places = places.reshape(first.shape)
    cut = documents[rows] @ matrix.T
    lengths = np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), _LEAST)
    cut /= lengths
    scores = queries @ cut.T
    by_scores = np.zeros_like(scores)
    missed = (_softmax(np.take_along_axis(scores, places, 1)) - wanted) / (_TEMPERATURE * len(queries))
    np.put_along_axis(by_scores, places, missed, 1)
    by_cut = by_scores.T @ queries
    by_cut -= cut * (by_cut * cut).sum(1, keepdims=True)  # what would only change a length
    return np.asarray((by_cut / lengths).T @ documents[rows])


def _found(whole: Vectors, cut: Vectors) -> float:
    """Mean share of the ten documents with the highest scores in `whole` that have them in `cut` as well."""
    ten, found = (highest(scores, min(10, scores.shape[1])) for scores in (whole, cut))
    return float((ten[:, :, None] == found[:, None, :]).any(2).mean())


def _softmax(scores: Vectors) -> Vectors:
    raised = np.exp((scores - scores.max(1, keepdims=True)) / _TEMPERATURE)
    return np.asarray(raised / raised.sum(1, keepdims=True))
