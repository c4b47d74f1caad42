"""Searching in fewer dims than an index keeps is searching vectors that were cut and normalised again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexing import DIM, Hashed, indexed, texts, vector_of

from emb.errors import UsageError
from emb.search.index import build
from emb.search.index.reader import Index
from emb.similarity import Vectors, similarities, unit

CUT = 12
QUERIES = ["w1 query", "another", "w3 w4 w5"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BLOCK", 64)


def _best(names: list[str], documents: Vectors, query: Vectors, measure: str = "dot") -> list[str]:
    scores = similarities(query[None], documents, measure)[0]
    return [names[row] for row in np.lexsort((names, -scores))[:10]]


def _all(documents: dict[str, str], dim: int = DIM) -> Vectors:
    return np.stack([vector_of(text, dim) for text in documents.values()])


@pytest.mark.parametrize(
    ("codec", "rescore"),
    [
        ("float32", None),
        ("float16", None),
        ("int8", None),
        ("int4", None),
        ("binary", "int8"),
        ("binary", "lvq8"),
        ("int8", "float32"),
    ],
)
def test_it_finds_what_cut_vectors_find(codec: str, rescore: str | None, tmp_path: Path) -> None:
    documents = texts(300)
    indexed(tmp_path / "i", documents, codec=codec, rescore=rescore)
    with Index(tmp_path / "i") as index:
        fitted = index.snapshot().fitted
        assert fitted is not None
        stored = unit(fitted.finest.decode(fitted.finest.encode(unit(_all(documents))))[:, :CUT])
        for query in QUERIES:
            vector = unit(vector_of(query)[None])[0]
            hits = index.search_vector(vector, dim=CUT)
            assert [hit.id for hit in hits] == _best(list(documents), stored, unit(vector[None, :CUT])[0])
            short = index.search_vector(vector[:CUT], dim=CUT)  # of an encoder that has no more
            assert [hit.id for hit in short] == [hit.id for hit in hits]
            whole = index.search_vector(vector, dim=DIM)
            assert whole == index.search_vector(vector) != hits
        assert index.prepare(CUT) >= 300 * CUT * 4
        assert index.prepare(DIM) == 0


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "manhattan"])
def test_lengths_stay_where_they_count(similarity: str, tmp_path: Path) -> None:
    documents = texts(200)
    indexed(tmp_path / "i", documents, Hashed(similarity, False))
    with Index(tmp_path / "i") as index:
        for query in QUERIES:
            found = [hit.id for hit in index.search_vector(vector_of(query), dim=CUT)]
            assert found == _best(list(documents), _all(documents)[:, :CUT], vector_of(query)[:CUT], similarity)


def test_a_rotated_index_is_cut_behind_its_rotation(tmp_path: Path) -> None:
    documents = texts(300)
    indexed(tmp_path / "i", documents, rotate=True, dim=24)
    with Index(tmp_path / "i") as index:
        rotation = index.snapshot().space.rotation
        assert rotation is not None
        turned = unit((unit(_all(documents)) @ rotation.T)[:, :CUT])
        for query in QUERIES:
            vector = unit(vector_of(query)[None])[0]
            expected = _best(list(documents), turned, unit((vector @ rotation.T)[None, :CUT])[0])
            assert [hit.id for hit in index.search_vector(vector, dim=CUT)] == expected
        with pytest.raises(UsageError, match="a query of shape"):
            index.search_vector(vector_of("w1")[:CUT], dim=CUT)


def test_what_is_added_and_deleted_meanwhile_counts(tmp_path: Path) -> None:
    first = texts(100)
    indexed(tmp_path / "i", first)
    with Index(tmp_path / "i") as index:
        query = unit(vector_of("w3 text 103")[None])[0]
        before = index.search_vector(query, dim=CUT)
        indexed(tmp_path / "i", texts(30, 100))
        after = index.search_vector(query, dim=CUT)
        indexed(tmp_path / "i", {}, delete=[after[0].id])
        without = index.search_vector(query, 100, dim=CUT)
    assert after[0].id == "d0103"
    assert after != before
    assert "d0103" not in {hit.id for hit in without}


def test_filters_count_in_fewer_dims_too(tmp_path: Path) -> None:
    documents: dict[str, Any] = {
        name: {"text": text, "part": "ab"[row % 2]} for row, (name, text) in enumerate(texts(60).items())
    }
    indexed(tmp_path / "i", documents, metadata=("part",))
    with Index(tmp_path / "i") as index:
        hits = index.search_vector(vector_of("w1"), 60, where={"part": "b"}, dim=CUT)
    assert len(hits) == 30
    assert {hit.metadata["part"] for hit in hits} == {"b"}


@pytest.mark.parametrize("dim", [0, DIM + 1, -1])
def test_dims_that_are_not_there_are_refused(dim: int, tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(20))
    with Index(tmp_path / "i") as index, pytest.raises(UsageError, match=f"dim {dim}: the index keeps {DIM}"):
        index.search_vector(vector_of("w1"), dim=dim)


def test_bits_alone_are_not_cut(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(50), codec="binary")
    with Index(tmp_path / "i") as index:
        with pytest.raises(UsageError, match="nothing but binary codes"):
            index.search_vector(vector_of("w1"), dim=CUT)
        with pytest.raises(UsageError, match="nothing but binary codes"):
            index.prepare(CUT)
        assert index.search_vector(vector_of("w1"), dim=DIM) == index.search_vector(vector_of("w1"))
