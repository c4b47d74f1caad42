"""The order that documents are learned in: what is kept of it, and the way there."""

from __future__ import annotations

import numpy as np
import pytest

from emb.search.index.learned_order import _gradient, _softmax, order_of
from emb.similarity import Vectors, unit


def test_the_gradient_is_that_of_the_divergence() -> None:
    random = np.random.default_rng(1)
    documents = unit(random.standard_normal((30, 6)))
    whole, queries = (random.standard_normal((5, dim)) for dim in (6, 3))
    first, wanted = order_of(unit(whole), documents)
    matrix = random.standard_normal((3, 6))

    def divergence(matrix: Vectors) -> float:
        cut = documents @ matrix.T
        scores = queries @ (cut / np.linalg.norm(cut, axis=1, keepdims=True)).T
        shares = _softmax(np.take_along_axis(scores, first, 1))
        return float((wanted * np.log(wanted / shares)).sum(1).mean())

    found = _gradient(queries, first, wanted, documents, matrix)
    for place in np.ndindex(3, 6):
        step = np.zeros_like(matrix)
        step[place] = 1e-6
        slope = (divergence(matrix + step) - divergence(matrix - step)) / 2e-6
        assert found[place] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_the_order_is_that_of_the_scores() -> None:
    random = np.random.default_rng(1)
    queries, documents = (unit(random.standard_normal((count, 6))) for count in (3, 120))
    first, wanted = order_of(queries, documents)
    assert first.shape == wanted.shape == (3, 100)
    scores = queries @ documents.T
    for row in range(3):
        assert set(first[row]) == set(np.argsort(-scores[row])[:100])
        share = np.exp(scores[row][first[row]] / 0.05)
        np.testing.assert_allclose(wanted[row], share / share.sum(), rtol=1e-4)
