"""Milvus alone: what it does not keep, its file and its server, and what a filter is made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from indexing import Hashed, indexed, texts

import emb
from emb.errors import EngineError, MissingExtra, UsageError
from emb.search.engines.copying import Known
from emb.search.engines.opening import opened
from emb.search.engines.protocol import Row
from emb.search.engines.target import read_target


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on loopback: Milvus Lite's, which speaks the protocol of a cluster."""
    pytest.importorskip("pymilvus")
    lite = pytest.importorskip("milvus_lite.adapter.grpc.server")
    running, database, port = lite.start_server_in_thread(
        data_dir=str(tmp_path_factory.mktemp("server") / "data"), host="127.0.0.1", port=0
    )
    yield f"milvus://127.0.0.1:{port}"
    running.stop(grace=0)
    database.close()


def test_a_server_is_served_by_the_same_client(server: str, folder: Path) -> None:
    indexed(folder, texts(40))
    assert emb.sync(folder, f"{server}#papers").written == 40
    assert emb.sync(folder, f"{server}#papers").unchanged == 40
    query = Hashed().encode("w1 query")
    with emb.open_index(folder) as ours, emb.open_index(f"{server}#papers") as theirs:
        assert [hit.id for hit in theirs.search_vector(query)] == [hit.id for hit in ours.search_vector(query)]


def test_a_server_that_is_not_there(collection: str) -> None:
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:1/") as told:
        emb.open_index("milvus://root:secret@127.0.0.1:1#a")
    assert "secret" not in str(told.value)
    assert "check host and port" in told.value.hint


def test_a_file_belongs_to_one_process(collection: str, folder: Path) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, collection)
    code = f"import emb; emb.open_index({collection!r})"
    with emb.open_index(collection):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "EngineError" in other.stderr
    assert "one process at a time" in other.stderr


def test_two_openings_of_one_file_in_one_process(collection: str, folder: Path) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, collection)
    with emb.open_index(collection) as first:
        with emb.open_index(collection) as second:
            assert len(second.search_vector(Hashed().encode("w1"))) == 5
        assert len(first.search_vector(Hashed().encode("w1"))) == 5


def test_a_text_that_is_too_long_is_refused_before_anything_is_written(collection: str, folder: Path) -> None:
    indexed(folder, texts(3) | {"long": "ü" * 33_000})
    with pytest.raises(UsageError, match=r"'long' has one of 66,000") as told:
        emb.sync(folder, collection)
    assert "--chunk-tokens" in told.value.hint
    with pytest.raises(EngineError, match="no index here"):
        emb.open_index(collection)


@pytest.mark.parametrize(
    ("encoder", "find", "said"),
    [(Hashed("manhattan", False), "hnsw", "manhattan"), (Hashed(), "bits", "PostgreSQL alone")],
    ids=["manhattan", "bits"],
)
def test_what_it_does_not_do_is_refused(collection: str, folder: Path, encoder: Hashed, find: str, said: str) -> None:
    indexed(folder, texts(10), encoder)
    with pytest.raises(UsageError, match=said):
        emb.sync(folder, collection, find=find)


def test_a_collection_of_somebody_else_is_left_alone(collection: str, folder: Path) -> None:
    indexed(folder, texts(3))
    with opened(read_target(collection)) as engine:
        engine._client.create_collection(read_target(collection).name, dimension=4)  # type: ignore[attr-defined]
    for work in (lambda: emb.sync(folder, collection), lambda: emb.open_index(collection)):
        with pytest.raises(EngineError, match="did not make it"):
            work()


def test_a_long_description_takes_several_rows(collection: str) -> None:
    text = "".join(str(n) for n in range(30_000))
    with opened(read_target(collection)) as engine:
        engine.put("identity", text)
        assert engine.setting("identity") == text
        engine.put("identity", "short")
        assert engine.setting("identity") == "short"


def test_a_filter_holds_nothing_but_hashes(milvus: str) -> None:
    from emb.search.engines.milvus import _filter

    assert _filter({'a"b': ['"] or true', "x"]}).translate(str.maketrans("", "", "0123456789abcdef")) == (
        'rry_ontins_ny(tgs, ["", ""])'
    )
    assert _filter({"a": ["bc"]}) != _filter({"ab": ["c"]})


def test_a_row_that_lies_there_twice_is_told() -> None:
    with pytest.raises(EngineError, match="lies there twice"):
        Known([("a", "1"), ("b", "1"), ("a", "2")], "milvus:x.db#t")


def test_known_rows_are_told_from_changed_ones() -> None:
    def row(key: str, stamp: str) -> Row:
        return Row(key, stamp, "d", "", "", 0, 0, {}, Hashed().encode("w1"))

    known = Known([("a", "1"), ("b", "1"), ("c", "1")], "here")
    assert [known.has(row("a", "1")), known.has(row("b", "2")), known.has(row("d", "1"))] == [True, False, False]
    assert list(known.rest()) == ["c"]
    known.close()


@pytest.mark.parametrize(
    ("address", "package", "extra"), [("milvus:a.db", "pymilvus", "milvus"), ("postgres://h/d", "psycopg", "postgres")]
)
def test_a_client_that_is_not_installed_is_told(
    address: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("postgres", "postgres_sql", "milvus"):
        monkeypatch.delitem(sys.modules, f"emb.search.engines.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtra, match=package) as told:
        emb.open_index(address)
    assert f"emb-distill[{extra}]" in told.value.hint
