"""A matrix for documents, learned from queries: behind it, queries of another space find them in a given order.

It is fitted like a student's order of documents: the KL divergence from the softmax of the scores that are to be kept,
over the documents that they find first (as in arXiv 2306.11550).
"""

from __future__ import annotations

import numpy as np

from emb.progress import bar
from emb.search.index.candidates import Rows
from emb.similarity import Vectors, highest

Order = tuple[Rows, Vectors]
_FIRST = 100  # documents whose order is learned, of each query
_TEMPERATURE = 0.05
_BATCH, _STEPS, _RATE = 256, 600, 1e-3
_FADING = (0.9, 0.999)  # of Adam's two means
_LEAST = 1e-12  # a length, and a root of a mean square
_BLOCK = 1024


def order_of(queries: Vectors, documents: Vectors) -> Order:
    """The rows of the documents that each query finds first `(queries, first)`, and their share in its softmax.

    Both are of length 1 and of one space: `(queries, dim)` and `(documents, dim)`.
    """
    found, shares = [], []
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ documents.T
        first = highest(scores, min(_FIRST, len(documents)))
        found.append(first)
        shares.append(_softmax(np.take_along_axis(scores, first, 1)))
    return np.concatenate(found), np.concatenate(shares)


def descended(
    queries: Vectors, order: Order, documents: Vectors, matrix: Vectors, random: np.random.Generator
) -> Vectors:
    """The matrix `(queries' dim, documents' dim)` after 600 steps of Adam (arXiv 1412.6980), the rate falling along a
    cosine. Scores are those of `queries` with what `matrix` makes of `documents`, of length 1.
    """
    first, wanted = order
    mean, square = np.zeros_like(matrix), np.zeros_like(matrix)
    with bar("learning (steps)", _STEPS) as advance:
        for step in range(1, _STEPS + 1):
            rows = random.integers(len(queries), size=min(_BATCH, len(queries)))
            gradient = _gradient(queries[rows], first[rows], wanted[rows], documents, matrix)
            mean = _FADING[0] * mean + (1 - _FADING[0]) * gradient
            square = _FADING[1] * square + (1 - _FADING[1]) * gradient**2
            rate = _RATE * (1 + np.cos(np.pi * (step - 1) / _STEPS)) / 2
            root = np.sqrt(square / (1 - _FADING[1] ** step)) + _LEAST
            matrix = (matrix - rate * mean / (1 - _FADING[0] ** step) / root).astype(np.float32)
            advance(1)
    return matrix


def _gradient(queries: Vectors, first: Rows, wanted: Vectors, documents: Vectors, matrix: Vectors) -> Vectors:
    """Of the mean KL divergence from `wanted` to the softmax of the scores behind the matrix, by the matrix."""
    rows, places = np.unique(first, return_inverse=True)
    places = places.reshape(first.shape)
    turned = documents[rows] @ matrix.T
    lengths = np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), _LEAST)
    turned /= lengths
    scores = queries @ turned.T
    by_scores = np.zeros_like(scores)
    missed = (_softmax(np.take_along_axis(scores, places, 1)) - wanted) / (_TEMPERATURE * len(queries))
    np.put_along_axis(by_scores, places, missed, 1)
    by_turned = by_scores.T @ queries
    by_turned -= turned * (by_turned * turned).sum(1, keepdims=True)  # what would only change a length
    return np.asarray((by_turned / lengths).T @ documents[rows])


def _softmax(scores: Vectors) -> Vectors:
    raised = np.exp((scores - scores.max(1, keepdims=True)) / _TEMPERATURE)
    return np.asarray(raised / raised.sum(1, keepdims=True))
