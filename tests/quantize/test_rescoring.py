"""Two passes: candidates by codes, order by finer vectors; only the candidates' rows are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emb.errors import UsageError
from emb.quantize.vectors.binary import BinaryCodec
from emb.quantize.vectors.rescoring import Stored, search
from emb.quantize.vectors.scalar import Float32Codec, Int8Codec
from emb.similarity import unit

DOCUMENTS = unit(np.random.default_rng(0).standard_normal((300, 16)))
QUERIES = unit(np.random.default_rng(1).standard_normal((20, 16)))
EXACT = np.argsort(-(QUERIES @ DOCUMENTS.T), axis=1)[:, :10]
FLOATS = Stored(Float32Codec(16), DOCUMENTS)


def _stored(codec: Any) -> Stored:
    return Stored(codec, codec.encode(DOCUMENTS))


def _share(rows: Any) -> float:
    return float((EXACT[:, :, None] == rows[:, None, :]).any(2).mean())


def test_float_search_is_exact() -> None:
    rows, scores = search(QUERIES, FLOATS)
    assert np.array_equal(rows, EXACT)
    np.testing.assert_allclose(scores, np.take_along_axis(QUERIES @ DOCUMENTS.T, EXACT, 1), atol=1e-6)


def test_rescoring_all_of_them_is_exact() -> None:
    rows, scores = search(QUERIES, _stored(BinaryCodec.fit(DOCUMENTS)), rescore=FLOATS, depth=300)
    assert np.array_equal(rows, EXACT)
    np.testing.assert_allclose(scores, np.take_along_axis(QUERIES @ DOCUMENTS.T, EXACT, 1), atol=1e-6)


def test_more_candidates_find_more() -> None:
    bits = _stored(BinaryCodec.fit(DOCUMENTS))
    shares = [
        _share(search(QUERIES, bits)[0]),
        *(
            _share(search(QUERIES, bits, rescore=_stored(Int8Codec.fit(DOCUMENTS)), depth=depth)[0])
            for depth in (20, 60, 150)
        ),
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.6 < 0.9 < shares[-1]


def test_only_the_candidates_are_read() -> None:
    seen: list[int] = []

    class Disk(Float32Codec):
        def scores(self, queries: Any, codes: Any) -> Any:
            seen.append(len(codes))
            return super().scores(queries, codes)

    search(QUERIES, _stored(BinaryCodec.fit(DOCUMENTS)), rescore=Stored(Disk(16), DOCUMENTS), depth=25)
    assert seen == [25] * len(QUERIES)


def test_coded_queries() -> None:
    codec = BinaryCodec.fit(DOCUMENTS)
    rows, scores = search(QUERIES, _stored(codec), query_codec=codec)
    by_hand = codec.symmetric(codec.encode(QUERIES), codec.encode(DOCUMENTS))
    np.testing.assert_allclose(scores, np.take_along_axis(by_hand, rows, 1), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert _share(rows) < _share(search(QUERIES, _stored(codec))[0])


def test_fewer_documents_than_asked_for() -> None:
    few = Stored(Float32Codec(16), DOCUMENTS[:3])
    rows, _ = search(QUERIES, few, rescore=few)
    assert rows.shape == (20, 3)


def test_other_documents_are_refused() -> None:
    with pytest.raises(UsageError, match="300 coded documents and 299"):
        search(QUERIES, FLOATS, rescore=Stored(Float32Codec(16), DOCUMENTS[1:]))
