"""What a map knows of a query: how its best scores lie, and its vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emb.similarity import Vectors, unit

DEPTH = 10  # best scores of a query that are looked at: as many as a page of hits
SCORES, VECTOR = "scores", "vector"


def features_of(uses: Sequence[str], vectors: Vectors, scores: Vectors) -> Vectors:
    """Features `(queries, features)` of `uses`, from vectors `(queries, dim)` and scores `(queries, hits)`."""
    nothing = np.empty((len(scores), 0))
    from_scores = score_features(scores) if SCORES in uses else nothing
    from_vectors = unit(vectors, np.float64) if VECTOR in uses else nothing
    return np.concatenate([from_scores, from_vectors], axis=1)


def score_features(scores: Vectors) -> Vectors:
    """The best score of each query, and mean and spread of the best ten, `(queries, 3)`."""
    best = -np.sort(-np.asarray(scores, np.float64), axis=1)[:, :DEPTH]
    return np.stack([best[:, 0], best.mean(axis=1), best.std(axis=1)], axis=1)
