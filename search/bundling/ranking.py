"""Whom a query finds, and how far two ways of searching find the same."""

from __future__ import annotations

import numpy as np

from emb.similarity import Vectors, similarities, truncated

FIRST = 10  # documents of a query that count


def cut(vectors: Vectors, dim: int, normalize: bool) -> Vectors:
    """The first `dim` numbers of each vector, at length 1 again where the model's are."""
    return truncated(vectors, dim) if normalize else vectors[:, :dim]


def nearest(queries: Vectors, documents: Vectors, similarity: str) -> Vectors:
    """Rows of the first documents of each query, the best first, `(queries, FIRST)`."""
    scores = similarities(queries, documents, similarity)
    return np.argsort(-scores, axis=1, kind="stable")[:, :FIRST]


def overlap(truth: Vectors, found: Vectors) -> float:
    """The share of each query's first documents that `found` has too, in the mean."""
    shared = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(truth, found, strict=True)]
    return float(np.mean(shared))
