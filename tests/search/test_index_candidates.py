"""What finds candidates scores rows as the codec does, and says truly what it left out."""

from __future__ import annotations

import numpy as np
import pytest

from emb.quantize.vectors.codecs import CODECS
from emb.search.index.candidates import Candidates, FaissFlat, Hamming, Scored, as_scores
from emb.search.index.verify import scores_of
from emb.similarity import Vectors, unit

MEASURES = ("dot", "euclidean")
KINDS = ("float32", "float16", "int8", "int4")


def _made(count: int = 200, dim: int = 8) -> Vectors:
    rows = np.random.default_rng(0).normal(1, 0.3, (count, dim)) * np.arange(1, dim + 1)
    return np.asarray(rows, np.float32)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", KINDS)
def test_faiss_scores_codes_as_the_codec_does(kind: str, measure: str) -> None:
    vectors = _made()
    codec = CODECS[kind].fit(vectors)
    codes, query = codec.encode(vectors), _made(1)[0] * np.float32(0.9)
    scores, rows = FaissFlat(codec, codes, measure).index.search(query[None], len(vectors))
    np.testing.assert_allclose(
        as_scores(scores[0], measure), scores_of(query, codec, codes, rows[0], measure), rtol=1e-5, atol=2e-5
    )


def _ways(vectors: Vectors) -> list[Candidates]:
    floats, bits = CODECS["float32"].fit(vectors), CODECS["binary"].fit(vectors)
    return [
        *(FaissFlat(floats, floats.encode(vectors), measure) for measure in MEASURES),
        Scored(bits, bits.encode(vectors)),
        Hamming(bits, bits.encode(vectors)),
    ]


@pytest.mark.parametrize("way", range(4))
@pytest.mark.parametrize("depth", [1, 7, 99, 100, 150])
def test_what_is_left_out_is_no_better_than_what_is_said(way: int, depth: int) -> None:
    vectors = unit(_made() - _made().mean(axis=0))
    candidates, query = _ways(vectors)[way], vectors[1]
    allowed = np.arange(len(vectors)) % 2 == 0
    found = candidates.find(query, depth, allowed)
    assert allowed[found.rows].all()
    assert len(set(found.rows.tolist())) == len(found.rows) >= min(depth, 100)
    if depth >= 100:
        assert found.least == -np.inf
        return
    assert found.least != -np.inf
    if found.least is not None:
        floats = CODECS["float32" if isinstance(candidates, FaissFlat) else "binary"].fit(vectors)
        measure = candidates.measure if isinstance(candidates, FaissFlat) else "dot"
        left = np.setdiff1d(np.flatnonzero(allowed), found.rows)
        scores, ours = (scores_of(query, floats, floats.encode(vectors), rows, measure) for rows in (left, found.rows))
        assert scores.max(initial=-np.inf) <= found.least + 1e-5
        assert found.least == pytest.approx(ours.min(), abs=1e-5)  # no higher than it must be


def test_nothing_is_found_where_nothing_is_allowed() -> None:
    vectors = unit(_made())
    for candidates in _ways(vectors):
        found = candidates.find(vectors[0], 5, np.zeros(len(vectors), bool))
        assert (len(found.rows), found.least) == (0, -np.inf)
