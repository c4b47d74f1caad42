"""What an index finds is what a brute force over its vectors finds, whichever way it came about."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing import Hashed, indexed, ranking, texts, vector_of

import emb
from emb.errors import DataError
from emb.search.index import build, graphs, storing
from emb.search.index.bounded import Bounded
from emb.search.index.candidates import Hamming, Scored
from emb.search.index.graphs import Graph
from emb.search.index.quality import recall
from emb.search.index.reader import Index
from emb.similarity import Vectors, similarities, unit

QUERIES = ["w1 query", "another", "w3 w4 w5"]
STORES = [
    ("float32", None),
    ("float16", None),
    ("int8", None),
    ("int4", None),
    ("binary", None),
    ("binary", "int8"),
    ("binary", "lvq8"),
    ("binary", "float16"),
    ("int8", "float32"),
]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BLOCK", 64)


def _brute(vectors: Vectors, names: list[str], query: Vectors, measure: str, k: int = 10) -> list[str]:
    scores = similarities(query[None], vectors, measure)[0]
    return [names[row] for row in np.lexsort((names, -scores))[:k]]


@pytest.mark.parametrize(("codec", "rescore"), STORES)
def test_it_finds_what_brute_force_finds(codec: str, rescore: str | None, tmp_path: Path) -> None:
    documents = texts(300)
    indexed(tmp_path / "i", documents, codec=codec, rescore=rescore)
    with Index(tmp_path / "i") as index:
        fitted = index.snapshot().fitted
    assert fitted is not None
    assert (fitted.codec.kind, fitted.finest.kind) == (codec, rescore or codec)
    vectors = unit(np.stack([vector_of(text) for text in documents.values()]))
    stored = fitted.finest.decode(fitted.finest.encode(vectors))
    for query in QUERIES:
        found = ranking(tmp_path / "i", query)
        assert [name for name, _ in found] == _brute(stored, list(documents), unit(vector_of(query)[None])[0], "dot")
    exact = [name for name, _ in ranking(tmp_path / "i", "w1 text 1", 1)]
    assert exact == ["d0001"]


@pytest.mark.parametrize(("similarity", "normalize"), [("dot", False), ("euclidean", False), ("manhattan", False)])
def test_other_similarities_are_carried(similarity: str, normalize: bool, tmp_path: Path) -> None:
    documents = texts(200)
    indexed(tmp_path / "i", documents, Hashed(similarity, normalize))
    vectors = np.stack([vector_of(text) for text in documents.values()])
    for query in QUERIES:
        found = ranking(tmp_path / "i", query)
        assert [name for name, _ in found] == _brute(vectors, list(documents), vector_of(query), similarity)
        best = similarities(vector_of(query)[None], vectors, similarity).max()
        assert found[0][1] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("codec", ["float16", "int8", "int4"])
def test_euclidean_distances_of_codes(codec: str, tmp_path: Path) -> None:
    documents = texts(200)
    indexed(tmp_path / "i", documents, Hashed("euclidean", False), codec=codec)
    with Index(tmp_path / "i") as index:
        fitted = index.snapshot().fitted
    assert fitted is not None
    vectors = fitted.codec.decode(fitted.codec.encode(np.stack([vector_of(text) for text in documents.values()])))
    for query in QUERIES:
        found = [name for name, _ in ranking(tmp_path / "i", query)]
        assert found == _brute(vectors, list(documents), vector_of(query), "euclidean")


def test_a_cut_is_of_the_rotated_vectors(tmp_path: Path) -> None:
    documents = texts(300)
    indexed(tmp_path / "plain", documents, dim=8)
    indexed(tmp_path / "turned", documents, dim=8, rotate=True)
    vectors = unit(np.stack([vector_of(text) for text in documents.values()]))
    with Index(tmp_path / "turned") as index:
        space = index.snapshot().space
    assert space.rotation is not None
    np.testing.assert_allclose(space.rotation @ space.rotation.T, np.eye(32), atol=1e-5)
    shares = {}
    for name in ("plain", "turned"):
        near = [
            {each for each, _ in ranking(tmp_path / name, query)}
            & set(_brute(vectors, list(documents), unit(vector_of(query)[None])[0], "dot"))
            for query in [f"query {number}" for number in range(30)]
        ]
        shares[name] = np.mean([len(each) for each in near])
    assert shares["turned"] > shares["plain"] + 0.5


@settings(max_examples=12)
@given(
    steps=st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, 20), st.integers(0, 3), max_size=12),
            st.lists(st.integers(0, 20), max_size=6),
        ),
        min_size=1,
        max_size=4,
    ),
    store=st.sampled_from([("float32", None), ("binary", "float32")]),
    order=st.randoms(use_true_random=False),
)
def test_increments_in_any_order_give_what_one_build_gives(
    steps: list[tuple[dict[int, int], list[int]]], store: tuple[str, str | None], order: Any
) -> None:
    layout = {"codec": store[0], "rescore": store[1]}
    with tempfile.TemporaryDirectory() as scratch:
        state: dict[str, str] = texts(4, 100)
        indexed(Path(scratch, "grown"), state, **layout)
        for added, removed in steps:
            given = {f"d{key}": f"text {key} version {version}" for key, version in added.items()}
            gone = [f"d{key}" for key in removed]
            if given or gone:
                indexed(Path(scratch, "grown"), given, delete=gone, **layout)
            state = {key: text for key, text in state.items() if key not in gone} | given
        shuffled = list(state.items())
        order.shuffle(shuffled)
        done = indexed(Path(scratch, "once"), dict(shuffled), **layout)
        assert done.documents == len(state)
        for query in QUERIES:
            grown, once = (ranking(Path(scratch, name), query, 30) for name in ("grown", "once"))
            assert grown == once
            assert {name for name, _ in grown} == set(state)


def test_only_what_changed_is_encoded(tmp_path: Path) -> None:
    encoder = Hashed()
    first = indexed(tmp_path / "i", texts(10), encoder)
    assert (first.added, first.documents, encoder.encoded) == (10, 10, 10)
    again = indexed(tmp_path / "i", {**texts(12), "d0003": "other words"}, encoder)
    assert (again.added, again.updated, again.unchanged, again.documents) == (2, 1, 9, 12)
    assert encoder.encoded == 13
    assert indexed(tmp_path / "i", {}, delete=["d0001", "nobody"]).deleted == 1
    assert emb.index([], tmp_path / "i", delete="d0002").deleted == 1
    assert "d0001" not in [name for name, _ in ranking(tmp_path / "i", k=20)]


def test_metadata_alone_is_set_without_encoding(tmp_path: Path) -> None:
    encoder = Hashed()
    indexed(tmp_path / "i", {"a": {"text": "w1", "year": 1999}}, encoder, metadata=("year",))
    done = indexed(tmp_path / "i", {"a": {"text": "w1", "year": 2000}}, encoder)
    assert (done.updated, encoder.encoded) == (1, 1)
    with Index(tmp_path / "i") as index:
        assert [hit.metadata for hit in index.search_vector(vector_of("w1"), where={"year": "2000"})] == [
            {"year": "2000"}
        ]
        assert index.search_vector(vector_of("w1"), where={"year": "1999"}) == []


@pytest.mark.parametrize("store", [("float32", None), ("binary", None), ("binary", "int8")])
@pytest.mark.parametrize("graph", [False, True])
def test_filters_never_lose_a_result(
    store: tuple[str, str | None], graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if graph:
        monkeypatch.setattr(graphs, "LARGE", 100)
        monkeypatch.setattr(graphs, "LARGE_BITS", 100)
    documents = {
        name: {"text": text, "rare": str(number % 100 == 0), "half": number % 2}
        for number, (name, text) in enumerate(texts(600).items())
    }
    indexed(tmp_path / "i", documents, codec=store[0], rescore=store[1], metadata=("rare", "half"))
    with Index(tmp_path / "i") as index:
        [segment] = index.snapshot().segments
        kinds = Graph if graph else {"float32": Bounded, "binary": Hamming if store[1] else Scored}[store[0]]
        assert isinstance(segment.stored.candidates, kinds)
    rare = [name for name, _ in ranking(tmp_path / "i", k=10, where={"rare": "True"}, depth=12)]
    assert sorted(rare) == [f"d{number:04d}" for number in range(0, 600, 100)]
    for k in (10, 300, 400):
        half = [name for name, _ in ranking(tmp_path / "i", k=k, where={"half": "1"}, depth=12)]
        assert len(half) == min(k, 300)
        assert all(int(name[1:]) % 2 for name in half)
    both = ranking(tmp_path / "i", where={"rare": ["True", "False"], "half": "0"}, k=600)
    assert len(both) == 300


def test_filters_take_values_as_documents_have_them(tmp_path: Path) -> None:
    documents = {f"d{number}": {"text": f"w{number}", "n": number % 3} for number in range(9)}
    indexed(tmp_path / "i", documents, metadata=("n",))
    asked: list[tuple[Any, int]] = [(1, 3), ("1", 3), ([1, "2"], 6), ((1, 1), 3), (None, 0), ([], 0), ("\udcff", 0)]
    asked += [([str(number) for number in range(300_000)], 9)]
    for value, count in asked:
        assert len(ranking(tmp_path / "i", k=20, where={"n": value})) == count, value


def test_a_structure_for_many_rows_finds_nearly_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LARGE", 500)
    documents = texts(2000)
    indexed(tmp_path / "i", documents)
    indexed(tmp_path / "i", {}, delete=[f"d{number:04d}" for number in range(0, 400)])
    with Index(tmp_path / "i") as index:
        assert isinstance(index.snapshot().segments[0].stored.candidates, Graph)
        assert recall(index.snapshot()) >= 0.9
    assert len(ranking(tmp_path / "i", k=2000)) == 1600


def test_a_factory_of_ones_own(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(300), factory="HNSW16,Flat")
    with Index(tmp_path / "i") as index:
        assert isinstance(index.snapshot().segments[0].stored.candidates, Graph)
        assert recall(index.snapshot()) >= 0.95


def test_equal_documents_rank_by_their_ids(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(60)]
    indexed(tmp_path / "i", dict.fromkeys(reversed(names), "w1 the same"))
    assert [name for name, _ in ranking(tmp_path / "i", k=7)] == sorted(names)[:7]


def test_pieces_cover_the_text_and_stand_for_their_document(tmp_path: Path) -> None:
    long = " ".join(f"w{number}" for number in range(20))
    documents = {"long": {"text": long, "title": "w49"}, "short": "w7 alone", **texts(20)}
    encoder = Hashed()
    done = indexed(tmp_path / "i", documents, encoder, chunk_tokens=8, overlap=3)
    assert done.quality.vectors == 4 + 1 + 20
    with Index(tmp_path / "i") as index:
        hits = index.search_vector(vector_of("w49 w5 w6 w7 w8 w9 w10 w11 w12"), k=22)
    assert hits[0].id == "long"
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert hits[0].passage == "w5 w6 w7 w8 w9 w10 w11 w12"
    assert long[hits[0].start : hits[0].stop].strip() == hits[0].passage
    assert len({hit.id for hit in hits}) == len(hits) == 22


def test_many_pieces_of_one_document_do_not_crowd_out_others(tmp_path: Path) -> None:
    documents = {"long": " ".join(["w1"] * 400), **texts(9)}
    indexed(tmp_path / "i", documents, chunk_tokens=4)
    assert len(ranking(tmp_path / "i", "w1 w1 w1 w1", k=10)) == 10


def test_segments_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_MANY", 3)
    for number in range(5):
        indexed(tmp_path / "i", texts(4, 4 * number))
    files = sorted(path.name for path in (tmp_path / "i" / "segments").iterdir())
    assert len(files) <= 3
    assert not any(name.endswith(".raw") for name in files)
    before = ranking(tmp_path / "i", k=20)
    indexed(tmp_path / "i", {}, delete=[f"d{number:04d}" for number in range(10)])
    [left] = (tmp_path / "i" / "segments").iterdir()
    assert left.stat().st_size == 10 * 32 * 4
    assert ranking(tmp_path / "i", k=20) == [each for each in before if each[0] >= "d0010"]


def test_an_index_may_be_emptied_and_filled_again(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(5))
    indexed(tmp_path / "i", {}, delete=list(texts(5)))
    assert ranking(tmp_path / "i") == []
    indexed(tmp_path / "i", texts(3))
    assert len(ranking(tmp_path / "i")) == 3


def test_ids_are_made_where_there_are_none(tmp_path: Path) -> None:
    source = tmp_path / "docs.txt"
    source.write_text("first line\nsecond line\nfirst line\n", encoding="utf-8")
    from emb.search.index.documents import Columns, read_entries, survey

    entries = list(read_entries([str(source)], Columns()))
    assert survey(entries) == 2
    assert entries[0].id == entries[2].id != entries[1].id
    assert len(entries[0].id) == 32


def test_an_id_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text('{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n{"id": 1, "text": "a"}\n', encoding="utf-8")
    from emb.search.index.documents import Columns, read_entries, survey

    with pytest.raises(DataError, match=r"the id '1' stands twice: .*docs.jsonl:1 and .*docs.jsonl:3"):
        survey(read_entries([str(source)], Columns()))
