"""What every engine does: the same hits as the index on disk, kept up to date, and nothing of another space."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexing import DIM, Hashed, indexed, texts

import emb
from emb.errors import ArtifactError, EngineError, UsageError
from emb.search.engines import copying
from emb.search.engines.identity import IDENTITY
from emb.search.engines.opening import opened
from emb.search.engines.target import read_target
from emb.search.index.build import LOCK
from emb.search.index.description import Description
from emb.search.index.hits import Hit
from emb.search.index.storing import Storing

QUERIES = ("w1 query", "w7 text 7", "another")


def found(place: str | Path, text: str, k: int = 10, encoder: Hashed | None = None, **options: Any) -> list[Hit]:
    """What a search finds."""
    with emb.open_index(place) as index:
        return index.search_vector((encoder or Hashed()).encode(text), k, **options)


def same(ours: list[Hit], theirs: list[Hit], tolerance: float = 1e-5) -> None:
    """The same documents in the same order, with the same scores."""
    assert [(hit.rank, hit.id, hit.title, hit.passage, hit.start, hit.stop, hit.metadata) for hit in ours] == [
        (hit.rank, hit.id, hit.title, hit.passage, hit.start, hit.stop, hit.metadata) for hit in theirs
    ]
    assert [hit.score for hit in theirs] == pytest.approx([hit.score for hit in ours], abs=tolerance)


@pytest.mark.parametrize("find", ["exact", "hnsw"])
def test_an_engine_finds_what_the_index_finds(address: str, folder: Path, find: str) -> None:
    indexed(folder, texts(150))
    done = emb.sync(folder, address, find=find)
    assert (done.documents, done.passages, done.written, done.find) == (150, 150, 150, find)
    for text in QUERIES:
        same(found(folder, text), found(address, text))
    same(found(folder, "w1", 200), found(address, "w1", 200))


@pytest.mark.parametrize(("similarity", "normalize"), [("dot", False), ("euclidean", False)])
def test_the_encoders_own_similarity(address: str, folder: Path, similarity: str, normalize: bool) -> None:
    encoder = Hashed(similarity, normalize)
    indexed(folder, texts(80), encoder)
    emb.sync(folder, address)
    same(found(folder, "w1", encoder=encoder), found(address, "w1", encoder=encoder), 1e-4)


@pytest.mark.parametrize(
    "layout",
    [{"dim": 8, "rotate": True}, {"codec": "binary", "rescore": "int8"}, {"codec": "float16"}],
    ids=["rotated", "bits with int8 behind them", "halves"],
)
def test_vectors_are_those_that_the_index_scores_by(address: str, folder: Path, layout: dict[str, Any]) -> None:
    indexed(folder, texts(80), **layout)
    emb.sync(folder, address, find="exact")
    ours, theirs = found(folder, "w1 query", 80), found(address, "w1 query", 80)
    by_id = {hit.id: hit.score for hit in theirs}
    tolerance = 2e-3 if "rescore" in layout and address.startswith("postgres") else 1e-5  # halves of int8's floats
    assert [by_id[hit.id] for hit in ours] == pytest.approx([hit.score for hit in ours], abs=tolerance)


def test_pieces_are_grouped_by_document(address: str, folder: Path) -> None:
    long = {f"d{n}": " ".join(f"w{(n + word) % 50}" for word in range(40)) for n in range(12)}
    indexed(folder, long | texts(20), chunk_tokens=6, overlap=2)
    done = emb.sync(folder, address, find="exact")
    assert done.passages > done.documents == 32
    same(found(folder, "w1 w2 w3", 12), found(address, "w1 w2 w3", 12))


def test_a_copy_follows_its_index(address: str, folder: Path) -> None:
    indexed(folder, texts(40))
    emb.sync(folder, address)
    indexed(folder, texts(4, 40) | {"d0001": "changed"}, delete=["d0002", "d0003"])
    done = emb.sync(folder, address)
    assert (done.documents, done.written, done.unchanged, done.removed) == (42, 5, 37, 2)
    same(found(folder, "changed", 50), found(address, "changed", 50))
    again = emb.sync(folder, address)
    assert (again.written, again.unchanged, again.removed) == (0, 42, 0)
    indexed(folder, {}, delete=[hit.id for hit in found(folder, "w1", 50)])
    assert emb.sync(folder, address).removed == 42
    assert found(address, "w1") == []


def test_vectors_that_change_are_written(address: str, folder: Path, tmp_path: Path) -> None:
    """The same documents in an index whose codec was fitted to others."""
    indexed(folder, texts(30), codec="int8")
    indexed(tmp_path / "other", texts(300), codec="int8")
    indexed(tmp_path / "other", {}, delete=list(texts(270, 30)))
    emb.sync(folder, address)
    assert emb.sync(tmp_path / "other", address).written == 30
    same(found(tmp_path / "other", "w1"), found(address, "w1"), 2e-3)


def test_metadata_that_changes_is_written(address: str, folder: Path) -> None:
    documents = {"a": {"text": "w1", "lang": "de"}, "b": {"text": "w2", "lang": "en"}}
    indexed(folder, documents, metadata=("lang",))
    emb.sync(folder, address)
    indexed(folder, documents | {"b": {"text": "w2", "lang": "fr"}})
    assert emb.sync(folder, address).written == 1
    assert [hit.id for hit in found(address, "w2", where={"lang": "fr"})] == ["b"]
    assert found(address, "w2", where={"lang": "en"}) == []


def test_filters_find_what_they_find_in_the_index(
    address: str, folder: Path, languages: dict[str, dict[str, str]]
) -> None:
    indexed(folder, languages, metadata=("lang", "n"))
    emb.sync(folder, address)
    values = sorted({document["lang"] for document in languages.values()})
    for where in (*({"lang": value} for value in values), {"lang": values[:2], "n": "1"}, {"lang": "x' OR true --"}):
        ours = found(folder, "w1", 60, where=where)
        assert len(ours) in (0, 12)
        same(ours, found(address, "w1", 60, where=where))
    same(found(folder, "w1", 60, where={"n": 1}), found(address, "w1", 60, where={"n": [1]}))
    assert found(address, "w1", where={"lang": []}) == found(folder, "w1", where={"lang": []}) == []
    with pytest.raises(UsageError, match="not in this index"):
        found(address, "w1", where={"tags": "x"})


def test_an_id_of_any_length(address: str, folder: Path) -> None:
    long = "".join(hashlib.sha512(bytes([number])).hexdigest() for number in range(50))  # nothing packs that
    indexed(folder, {long: "w1", "a\nb": "w2", "a b": "w3"})
    assert emb.sync(folder, address).written == 3
    same(found(folder, "w1"), found(address, "w1"))


def test_vectors_that_are_none_are_refused(address: str, folder: Path) -> None:
    indexed(folder, texts(3))
    emb.sync(folder, address)
    with emb.open_index(address) as index:
        for vector in (np.full(DIM, np.nan), np.ones(DIM + 1), np.ones(DIM - 1)):
            with pytest.raises(UsageError, match=r"a query of shape|NaN or infinity"):
                index.search_vector(vector)


def test_a_filter_that_few_pass_finds_all_of_them(address: str, folder: Path) -> None:
    documents = {
        f"d{n:04d}": {"text": f"w{n % 50} text {n}", "kind": "rare" if n % 97 == 0 else "x"} for n in range(600)
    }
    indexed(folder, documents, metadata=("kind",))
    emb.sync(folder, address, find="hnsw")
    same(found(folder, "w1", 5, where={"kind": "rare"}), found(address, "w1", 5, where={"kind": "rare"}))
    assert len(found(address, "w1", 10, where={"kind": "rare"})) == 7


def test_a_sync_that_died_goes_on(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    indexed(folder, texts(50))
    monkeypatch.setattr(copying, "BATCH", 10)
    with opened(read_target(address)) as engine:
        write, calls = type(engine).write, []

    def dying(self: Any, *args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(type(engine), "write", dying)
        with pytest.raises(KeyboardInterrupt):
            emb.sync(folder, address)
    assert len(found(address, "w1", 50)) == 20
    assert "did not come to its end" in " ".join(capsys.readouterr().err.split())
    done = emb.sync(folder, address)
    assert (done.written, done.unchanged) == (30, 20)
    same(found(folder, "w1", 50), found(address, "w1", 50))
    assert "did not come to its end" not in " ".join(capsys.readouterr().err.split())


def test_vectors_of_another_space_are_refused(address: str, folder: Path, tmp_path: Path) -> None:
    indexed(folder, texts(30))
    emb.sync(folder, address)
    cut, halves, turned = tmp_path / "cut", tmp_path / "halves", tmp_path / "turned"
    indexed(cut, texts(30), dim=16)
    indexed(halves, texts(30), codec="float16")
    indexed(turned, texts(30), rotate=True)
    for other, said in ((cut, "16 dims"), (halves, "as float16"), (turned, "turned or cut in another way")):
        with pytest.raises(ArtifactError, match=said):
            emb.sync(other, address)
    known = Description.load(folder)
    replace(known, encoder=replace(known.encoder, fingerprint="g")).write(folder)
    with pytest.raises(ArtifactError, match="another model of that name"):
        emb.sync(folder, address)
    assert emb.sync(cut, address, overwrite=True).written == 30
    same(found(cut, "w1"), found(address, "w1"))
    with pytest.raises(UsageError, match="was begun with hnsw"):
        emb.sync(cut, address, find="exact")
    known = Description.load(cut)
    replace(known, layout=replace(known.layout, learn_cut=True)).write(cut)
    with pytest.raises(ArtifactError, match="turned or cut in another way"):
        emb.sync(cut, address)


def test_a_query_encoder_of_another_space_is_refused(address: str, folder: Path) -> None:
    indexed(folder, texts(10))
    emb.sync(folder, address)
    with pytest.raises(ArtifactError, match="16 dims"):
        emb.open_index(address, Hashed(dim=16))
    with pytest.raises(ArtifactError, match="compares by dot"):
        emb.open_index(address, Hashed("dot"))
    with emb.open_index(address, Hashed()) as index:
        assert index.search("w1 text", 1)[0].rank == 1


def test_a_table_written_anew_under_an_open_search_is_noticed(address: str, folder: Path, tmp_path: Path) -> None:
    indexed(folder, texts(10))
    indexed(tmp_path / "halves", texts(10), codec="float16")
    emb.sync(folder, address)
    with emb.open_index(address) as index:
        emb.sync(tmp_path / "halves", address, overwrite=True)
        with pytest.raises(EngineError, match="was written anew"):
            index.search_vector(Hashed().encode("w1"))


def test_an_edited_description_is_refused(address: str, folder: Path) -> None:
    indexed(folder, texts(10))
    emb.sync(folder, address)
    with opened(read_target(address)) as engine:
        text = engine.setting(IDENTITY) or ""
        engine.put(IDENTITY, text.replace('"max_length": 16', '"max_length": 17'))
        assert engine.setting(IDENTITY) != text
    for work in (lambda: emb.open_index(address), lambda: emb.sync(folder, address)):
        with pytest.raises(EngineError, match="has changed since it was written"):
            work()
    emb.sync(folder, address, overwrite=True)
    assert len(found(address, "w1")) == 10


def test_what_is_no_index_is_refused(address: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no index here"):
        emb.open_index(address)
    with pytest.raises(ArtifactError, match="no index here"):
        emb.sync(tmp_path / "nothing", address)
    assert not (tmp_path / "nothing").exists()
    indexed(folder, texts(3))
    with pytest.raises(UsageError, match="unknown"):
        emb.sync(folder, address, find="magic")


def test_an_index_without_its_end_is_refused(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(self: Storing) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Storing, "settle", dying)
        with pytest.raises(KeyboardInterrupt):
            indexed(folder, texts(10))
    with pytest.raises(ArtifactError, match="not all stored yet"):
        emb.sync(folder, address)
    indexed(folder, texts(10))
    assert emb.sync(folder, address).written == 10


def test_an_index_that_nobody_can_write_is_copied(
    collection: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(folder, texts(5))
    (folder / LOCK).unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert emb.sync(folder, collection).written == 5
    assert not (folder / LOCK).exists()
