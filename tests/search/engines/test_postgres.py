"""PostgreSQL alone: graphs, bits, the page's own SQL, rights, passwords, and connections that are lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from indexing import Hashed, indexed, record, texts
from postgres_cluster import PASSWORD
from test_packaging import ROOT

import emb
from emb.cli import cli
from emb.commands import console
from emb.errors import EngineError, UsageError
from emb.search.engines.opening import opened
from emb.search.engines.protocol import Form
from emb.search.engines.target import read_target
from emb.search.index.hits import Hit


def found(place: str | Path, k: int = 10, encoder: Hashed | None = None, **options: Any) -> list[Hit]:
    """What a search finds."""
    with emb.open_index(place) as index:
        return index.search_vector((encoder or Hashed()).encode("w1 query"), k, **options)


def asked(address: str, text: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the server answers."""
    import psycopg

    with psycopg.connect(address.partition("#")[0], autocommit=True) as sql:
        answer = sql.execute(text, values or None)
        return answer.fetchall() if answer.description else []


def name_of(table: str) -> str:
    """Of a table, behind #."""
    return table.partition("#")[2]


@pytest.mark.parametrize(("find", "kind"), [("hnsw", "halfvec_ip_ops"), ("bits", "bit_hamming_ops"), ("exact", None)])
def test_the_graph_that_was_asked_for_is_built(table: str, folder: Path, find: str, kind: str | None) -> None:
    indexed(folder, texts(600), codec="float16")
    emb.sync(folder, table, find=find)
    name = name_of(table)
    made = " ".join(text for (text,) in asked(table, "SELECT indexdef FROM pg_indexes WHERE tablename = %s", name))
    assert ("hnsw" in made) is (kind is not None)
    assert (kind or "gin") in made
    assert [hit.id for hit in found(table)] == [hit.id for hit in found(folder)]


def test_bits_choose_and_whole_vectors_decide(table: str, folder: Path) -> None:
    indexed(folder, texts(300), codec="float16")
    emb.sync(folder, table, find="bits")
    best = [hit.id for hit in found(folder)]
    assert [hit.id for hit in found(table, depth=300)] == best
    few = found(table, 3, depth=3)
    assert len(few) == 3
    assert [hit.score for hit in few] == sorted((hit.score for hit in few), reverse=True)
    assert len(found(table, 250, depth=10)) == 250  # more than candidates


@pytest.mark.parametrize("iterates", [(0, 8), (9, 9)], ids=["it goes on", "an older pgvector"])
def test_more_documents_than_a_graph_keeps_in_sight(
    table: str, folder: Path, iterates: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emb.search.engines.postgres._ITERATES", iterates)
    indexed(folder, texts(1060), dim=8)
    emb.sync(folder, table, find="hnsw")
    assert {hit.id for hit in found(table, 1050)} == {hit.id for hit in found(folder, 1050)}


def test_manhattan_distances(table: str, folder: Path) -> None:
    encoder = Hashed("manhattan", False)
    indexed(folder, texts(60), encoder)
    emb.sync(folder, table)
    ours, theirs = found(folder, encoder=encoder), found(table, encoder=encoder)
    assert [hit.id for hit in theirs] == [hit.id for hit in ours]
    assert [hit.score for hit in theirs] == pytest.approx([hit.score for hit in ours], rel=1e-5)


def test_bits_need_directions(table: str, folder: Path) -> None:
    indexed(folder, texts(20), Hashed("dot", False))
    with pytest.raises(UsageError, match="keeps directions alone"):
        emb.sync(folder, table, find="bits")


def test_more_dims_than_a_graph_takes_are_refused_before_anything_is_written(table: str) -> None:
    with opened(read_target(table)) as engine:
        with pytest.raises(UsageError, match="up to 2,000 dims of type vector"):
            engine.check(Form(2001, "dot", True, "float32", "hnsw"))
        engine.check(Form(2001, "dot", True, "int8", "hnsw"))
        engine.check(Form(4096, "dot", True, "float32", "bits"))


def test_the_sql_of_the_page_runs(table: str, folder: Path) -> None:
    """What the page shows for people without this program finds what it finds."""
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    [two_stages, plain] = [text for text in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if "SELECT id" in text]
    documents = {name: {"text": text, "year": "2024"} for name, text in texts(120).items()}
    indexed(folder, documents, codec="float16", metadata=("year",))
    emb.sync(folder, table, find="bits")
    vector = str(Hashed().encode("w1 query").tolist())
    for text in (two_stages, plain):
        written = text.replace("papers", name_of(table)).replace("768", "32").replace("$1", f"'{vector}'")
        rows = asked(f"{table.partition('#')[0]}?options=-chnsw.ef_search%3D1000", written)
        assert [row[0] for row in rows] == [hit.id for hit in found(folder)]


def test_a_table_of_somebody_else_is_left_alone(table: str, folder: Path) -> None:
    asked(table, f"CREATE TABLE {name_of(table)} (mine int)")
    indexed(folder, texts(5))
    with pytest.raises(EngineError, match="did not make it"):
        emb.sync(folder, table)
    with pytest.raises(EngineError, match="did not make it"):
        emb.open_index(table)
    assert asked(table, f"SELECT * FROM {name_of(table)}") == []


def test_a_table_that_was_changed_is_told(table: str, folder: Path) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, table)
    asked(table, f"ALTER TABLE {name_of(table)} DROP COLUMN passage")
    with emb.open_index(table) as index, pytest.raises(EngineError, match="passage") as told:
        index.search_vector(Hashed().encode("w1"))
    assert "--overwrite" in told.value.hint
    assert emb.sync(folder, table, overwrite=True).written == 5


def test_rows_that_were_edited_or_added_by_hand_are_mended(table: str, folder: Path) -> None:
    indexed(folder, texts(8))
    emb.sync(folder, table)
    name = name_of(table)
    asked(table, f"UPDATE {name} SET passage = 'x', stamp = 'x' WHERE id = 'd0001'")
    asked(table, f"INSERT INTO {name} SELECT 'mine', 'x', 'd0002', title, passage, start, stop, metadata, embedding"
                 f" FROM {name} WHERE id = 'd0002'")  # fmt: skip
    done = emb.sync(folder, table)
    assert (done.written, done.removed) == (1, 1)
    assert [hit.passage for hit in found(table)] == [hit.passage for hit in found(folder)]


def test_a_second_writer_is_refused(table: str, folder: Path) -> None:
    indexed(folder, texts(5))
    with opened(read_target(table)) as engine:
        engine.hold()
        with pytest.raises(EngineError, match="another `emb sync` is writing"):
            emb.sync(folder, table)
    assert emb.sync(folder, table).written == 5


@pytest.mark.parametrize(
    ("documents", "field"),
    [
        ({"a": {"text": "w1", "lang": "d\0e"}}, "document 'a' has one in its metadata lang"),
        ({"a\0b": {"text": "w1", "lang": "de"}}, r"document 'a\\x00b' has one in its id"),
    ],
)
def test_a_nul_that_postgresql_does_not_keep_is_told_before_anything_is_written(
    documents: dict[str, Any], field: str, table: str, folder: Path
) -> None:
    indexed(folder, texts(3), metadata=())
    emb.sync(folder, table)
    other = folder.with_name("other")
    indexed(
        other,
        {name: {"text": text, "lang": "\\u0000"} for name, text in texts(3).items()} | documents,
        metadata=("lang",),
    )
    with pytest.raises(UsageError, match=field):
        emb.sync(other, table, overwrite=True)
    assert [hit.id for hit in found(table)] == [hit.id for hit in found(folder)]


def _somebody(address: str, rights: str = "") -> str:
    """The address for a role without rights of its own, made for this."""
    asked(address, f"DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'pass%word' {rights}")
    found = urlsplit(address)
    return found._replace(netloc=f"reader:{quote('pass%word')}@{found.hostname}:{found.port}").geturl()


def test_who_only_reads_may_search_and_not_write(table: str, folder: Path) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, table)
    reader, name = _somebody(table), name_of(table)
    try:
        with pytest.raises(EngineError, match="permission denied"):
            emb.open_index(reader)
        asked(table, f"GRANT SELECT ON {name}, {name}_space TO reader")
        assert len(found(reader)) == 5
        indexed(folder, texts(9))
        with pytest.raises(EngineError, match="permission denied") as refused:
            emb.sync(folder, reader)
        assert "right to read" in refused.value.hint
        assert "pass%word" not in str(refused.value)
    finally:
        asked(table, f"REVOKE ALL ON {name}, {name}_space FROM reader; DROP ROLE reader")


def test_a_database_without_pgvector_says_what_to_install(table: str, folder: Path) -> None:
    indexed(folder, texts(5))
    asked(table, "CREATE DATABASE bare")
    reader = _somebody(table).replace("/postgres#", "/bare#")
    try:
        with pytest.raises(EngineError, match="has no pgvector") as told:
            emb.sync(folder, reader)
        assert "CREATE EXTENSION vector" in told.value.hint
    finally:
        asked(table, "DROP DATABASE bare WITH (FORCE)")
        asked(table, "DROP ROLE reader")


def test_a_server_that_is_not_there_and_a_wrong_password(postgres: str, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = postgres.replace(quote(PASSWORD, safe=""), "wr%6Fng-secret")
    for address, said in ((wrong, "password authentication failed"), ("postgresql://u:wrong-secret@127.0.0.1:1/d", "")):
        words = ["--debug", "search", "a", "--index", address, "--query", "m"]
        assert console.run(cli, words) == 2
        told = "".join(capfd.readouterr())
        assert "cannot be reached" in told
        assert said in told
        assert "PGPASSWORD" in told
        assert "secret" not in told


def test_options_of_libpq(postgres: str, folder: Path) -> None:
    indexed(folder, texts(3))
    with pytest.raises(UsageError, match="nonsense"):
        emb.sync(folder, f"{postgres}?nonsense=1#a")
    with opened(read_target(f"{postgres}?application_name=mine#a")):
        assert asked(postgres, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'mine'")


def test_a_connection_that_was_lost_is_made_anew(table: str, folder: Path) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, table)
    with emb.open_index(table) as index:
        query = Hashed().encode("w1")
        assert index.search_vector(query)
        asked(table, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     " WHERE application_name = 'emb' AND pid <> pg_backend_pid()")  # fmt: skip
        with pytest.raises(EngineError, match="try again when the server answers"):
            index.search_vector(query)
        assert len(index.search_vector(query)) == 5


def test_no_password_on_the_command_line_is_printed(
    table: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    indexed(folder, texts(5))
    for words in (["sync", str(folder), table], ["sync", str(folder), table, "--json"]):
        assert console.run(cli, words) == 0
        told = "".join(capfd.readouterr())
        assert PASSWORD not in told
        assert quote(PASSWORD, safe="") not in told
        assert name_of(table) in told
    assert record(Hashed()).fingerprint in dict(asked(table, f"SELECT * FROM {name_of(table)}_space"))["identity"]
