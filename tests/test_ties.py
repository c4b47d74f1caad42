"""Documents of equal vectors tie and keep their order, wherever they stand and whatever is asked with them."""

from __future__ import annotations

import numpy as np
import pytest

from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.binary import BinaryCodec
from emb.quantize.vectors.rescoring import Stored, search
from emb.quantize.vectors.scalar import Float32Codec, Int8Codec
from emb.similarity import _neighbours, dots, geometry_spearman, neighbour_overlap

RNG = np.random.default_rng(5)
FEW = RNG.standard_normal((7, 96)).astype(np.float32)
MANY = FEW[RNG.integers(0, 7, 5000)]
QUERIES = RNG.standard_normal((9, 96)).astype(np.float32)


@pytest.mark.parametrize("kind", [Float32Codec, Int8Codec, BinaryCodec])
def test_equal_codes_score_the_same_wherever_they_stand(kind: type[Codec]) -> None:
    codec = kind.fit(MANY)
    codes = codec.encode(MANY)
    assert len(np.unique(codec.decode(codes), axis=0)) == len(np.unique(codes, axis=0))
    together = codec.scores(QUERIES, codes)
    for query, scores in zip(QUERIES, together, strict=True):
        assert len(np.unique(scores)) == len(np.unique(codes, axis=0))
        np.testing.assert_array_equal(codec.scores(query[None], codes)[0], scores)
        np.testing.assert_array_equal(codec.scores(query[None], codes[13:14])[0], scores[13:14])


def test_ties_stay_in_the_order_of_the_documents() -> None:
    codec = Float32Codec.fit(MANY)
    rows, scores = search(QUERIES, Stored(codec, codec.encode(MANY)), k=200)
    for found, given in zip(rows, scores, strict=True):
        ties = np.diff(given) == 0
        assert ties.any()
        assert (np.diff(found)[ties] > 0).all()


def test_dots_are_those_of_floats() -> None:
    np.testing.assert_allclose(dots(QUERIES, FEW), QUERIES @ FEW.T, rtol=1e-5, atol=1e-5)
    assert dots(QUERIES, FEW).dtype == np.float32


@pytest.mark.parametrize("first", [Float32Codec, BinaryCodec])
def test_ties_of_the_second_pass_stay_in_the_order_of_the_documents(first: type[Codec]) -> None:
    coarse, fine = first.fit(MANY), BinaryCodec.fit(MANY)
    rows, scores = search(
        QUERIES,
        Stored(coarse, coarse.encode(MANY)),
        k=1500,
        rescore=Stored(fine, np.zeros_like(fine.encode(MANY))),
        depth=2000,
    )
    assert (np.diff(scores) == 0).all()
    assert (np.diff(rows) > 0).all(), "candidates kept the order of the first pass"


def test_the_neighbours_of_equal_score_are_the_first_documents() -> None:
    for query in QUERIES:
        by_hand = np.argsort(-dots(query[None], MANY)[0], kind="stable")[:50]
        # The last row is left out as the query's own; hundreds of its equals stand before it.
        np.testing.assert_array_equal(_neighbours(query[None], MANY, len(MANY) - 1, 50)[0], np.sort(by_hand))


def test_neighbours_do_not_depend_on_the_block_they_are_sought_in() -> None:
    together = _neighbours(MANY[:300], MANY, 0, 10)
    assert together.shape == (300, 10)
    for start in (0, 1, 7, 299):
        np.testing.assert_array_equal(_neighbours(MANY[start : start + 1], MANY, start, 10)[0], together[start])


def test_likeness_does_not_depend_on_where_equal_rows_stand() -> None:
    a = MANY[:400]
    assert neighbour_overlap(a, a.copy()) == 1
    coarse = np.sign(a)
    turned = np.arange(400)[::-1]
    assert geometry_spearman(a, coarse) == pytest.approx(geometry_spearman(a[turned], coarse[turned]), abs=1e-12)
