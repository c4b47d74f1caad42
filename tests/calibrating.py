"""Made-up rankings of queries whose similarities lie at different heights."""

from __future__ import annotations

import numpy as np

from emb.search.calibration.pairs import Pairs


def shifted(queries: int = 120, documents: int = 40, dim: int = 6, seed: int = 0) -> Pairs:
    """Each query has three relevant documents, further up than its others by the same step; where it begins differs by
    far more than that.
    """
    random = np.random.default_rng(seed)
    height = random.uniform(0, 3, (queries, 1))
    relevant = np.arange(documents) < 3
    scores = height + 0.5 * relevant + random.normal(0, 0.1, (queries, documents))
    order = np.argsort(-scores, axis=1)
    vectors = random.normal(size=(queries, dim))
    told = np.broadcast_to(relevant, scores.shape)
    texts = [f"query {row}" for row in range(queries)]
    ranked, known = (np.take_along_axis(each, order, axis=1) for each in (scores, told))
    return Pairs(texts, vectors, ranked, known)
