"""Documents of equal vectors tie and keep their order, wherever they stand and whatever is asked with them."""

from __future__ import annotations

import numpy as np
import pytest

from emb.quantize.binary import BinaryCodec
from emb.quantize.codec import Codec
from emb.quantize.rescoring import Stored, search
from emb.quantize.scalar import Float32Codec, Int8Codec
from emb.similarity import dots

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
