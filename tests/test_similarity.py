"""The ruler itself, against independent arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.errors import UsageError
from emb.similarity import (
    Vectors,
    compare,
    cosines,
    geometry_spearman,
    neighbour_overlap,
    similarities,
    spearman,
    truncated,
    unit,
)


def _random(rows: int, dim: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def _overlap_by_hand(a: Vectors, b: Vectors, k: int) -> float:
    def near(vectors: Vectors, row: int) -> set[int]:
        cosine = [
            float(vectors[row] @ other / np.linalg.norm(vectors[row]) / np.linalg.norm(other)) for other in vectors
        ]
        order = sorted((index for index in range(len(vectors)) if index != row), key=lambda index: -cosine[index])
        return set(order[:k])

    return float(np.mean([len(near(a, row) & near(b, row)) / k for row in range(len(a))]))


def test_equal_vectors_are_perfect() -> None:
    vectors = _random(50, 8)
    parity = compare(vectors, vectors)
    assert parity.max_abs_diff == 0
    assert parity.min_cosine == pytest.approx(1, abs=1e-12)
    assert parity.spearman == pytest.approx(1)
    assert parity.overlap_at_10 == 1


def test_one_bad_row_shows_in_the_minimum_and_not_in_the_mean() -> None:
    vectors = _random(1000, 8)
    other = vectors.copy()
    other[17] *= -1
    parity = compare(vectors, other)
    assert parity.min_cosine == pytest.approx(-1)
    assert parity.mean_cosine == pytest.approx(1 - 2 / 1000)
    assert parity.p01_cosine == pytest.approx(1)


def test_scale_changes_the_difference_only() -> None:
    vectors = _random(40, 8)
    parity = compare(vectors, 3 * vectors)
    assert parity.max_abs_diff == pytest.approx(2 * float(np.abs(vectors).max()), rel=1e-6)
    assert parity.min_cosine == pytest.approx(1)
    assert parity.overlap_at_10 == 1


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(0).integers(0, 9, 200).astype(float)  # many ties
    y = x + np.random.default_rng(1).normal(size=200) * 3
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_of_constants() -> None:
    flat, rising = np.ones(5), np.arange(5.0)
    assert spearman(flat, flat) == 1
    assert spearman(flat, rising) == 0
    assert spearman(rising, -rising) == -1


@pytest.mark.parametrize("rows", [31, 64, 2100])  # 2100: more than one block
def test_overlap_is_what_it_says(rows: int) -> None:
    a = _random(rows, 6)
    b = a + 0.7 * _random(rows, 6, seed=1)
    if rows > 1000:
        assert neighbour_overlap(a, b) == pytest.approx(neighbour_overlap(b, a))
        assert neighbour_overlap(a, a) == 1
    else:
        assert neighbour_overlap(a, b) == pytest.approx(_overlap_by_hand(a, b, 10))


def test_overlap_of_few_rows_can_still_fail() -> None:
    a = _random(7, 3)
    assert neighbour_overlap(a, a) == 1
    assert neighbour_overlap(a, _random(7, 3, seed=5)) < 1
    assert neighbour_overlap(a[:2], -a[:2]) == 1  # nothing to order


def test_zero_and_broken_vectors() -> None:
    vectors = _random(20, 4)
    broken = vectors.copy()
    broken[3], broken[4] = 0, np.nan
    assert cosines(vectors, broken)[3] == 0
    assert cosines(vectors, broken)[4] == 0
    assert cosines(np.zeros((1, 4)), np.zeros((1, 4)))[0] == 1
    parity = compare(vectors, broken)
    assert parity.min_cosine == 0
    assert parity.max_abs_diff == np.inf
    broken[3:5] = np.inf
    assert compare(vectors, broken).max_abs_diff == np.inf


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows(rows: int) -> None:
    vectors = _random(rows, 4)
    assert compare(vectors, vectors).overlap_at_10 == 1
    assert geometry_spearman(vectors, vectors) == pytest.approx(1)


@pytest.mark.parametrize(("a", "b"), [((3, 4), (3, 5)), ((3, 4), (2, 4)), ((0, 4), (0, 4)), ((4,), (4,))])
def test_shapes_that_cannot_be_compared(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="shape"):
        compare(np.ones(a), np.ones(b))


def test_truncated_vectors_have_length_one() -> None:
    vectors = truncated(_random(9, 16), 5)
    assert vectors.shape == (9, 5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(4, 60), dim=st.integers(3, 12))
def test_a_rotation_changes_no_geometry(seed: int, rows: int, dim: int) -> None:
    vectors = _random(rows, dim, seed).astype(np.float64)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]
    assert geometry_spearman(vectors, vectors @ rotation) > 0.9999
    assert neighbour_overlap(vectors, vectors @ rotation) > 0.9
    np.testing.assert_allclose(
        unit(vectors) @ unit(vectors).T, unit(vectors @ rotation) @ unit(vectors @ rotation).T, atol=1e-5
    )


def test_overlap_on_an_index_sees_what_search_would_find() -> None:
    rng = np.random.default_rng(0)
    index = rng.normal(size=(60, 8))
    turned = index @ np.linalg.qr(rng.normal(size=(8, 8)))[0]  # the same geometry in another space
    assert neighbour_overlap(index, turned) == 1
    assert neighbour_overlap(turned, index, index=index) < 0.5
    assert neighbour_overlap(index * 3, index, index=index) == 1


@pytest.mark.parametrize("measure", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_are_those_of_sentence_transformers(measure: str) -> None:
    from sentence_transformers.util import SimilarityFunction

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 8)).astype(np.float32), 3 * rng.normal(size=(7, 8)).astype(np.float32)
    theirs = SimilarityFunction.to_similarity_fn(measure)(a, b)
    np.testing.assert_allclose(similarities(a, b, measure), np.asarray(theirs), atol=1e-4)
    assert similarities(a, b[:0], measure).shape == (5, 0)
    with pytest.raises(UsageError, match="'jaccard' is unknown"):
        similarities(a, b, "jaccard")


def test_overlap_counts_length_where_the_measure_does() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 8)).astype(np.float32)
    longer = a * rng.uniform(0.2, 5, size=(60, 1)).astype(np.float32)
    assert neighbour_overlap(a, longer) == 1 == neighbour_overlap(longer, longer, measure="dot")
    assert neighbour_overlap(a, longer, measure="dot") < 0.9
