"""A process that dies, a full disk and a second writer leave the last committed state."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from distilling import finish, limited, start
from indexing import BLOCK, Hashed, index_and_die, indexed, ranking, record, texts, vector_of

from emb.errors import ArtifactError
from emb.locks import locked
from emb.search.index import build, fitted
from emb.search.index.catalogue import FILE as SQLITE
from emb.search.index.catalogue import Catalogue
from emb.search.index.description import FILE, Description, Layout
from emb.search.index.reader import Index

_ROOM = "emb.search.index"
LAYOUT = {"codec": "binary", "rescore": "float32"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BLOCK", BLOCK)


@pytest.mark.parametrize(
    ("at", "committed"),
    [
        ((f"{_ROOM}.build", "append", 3), 6),  # before a block's vectors are written
        ((f"{_ROOM}.build", "put", 3), 6),  # written, and not committed
        ((f"{_ROOM}.additions", "_set_facts", 8), 6),  # in the middle of a transaction
        ((f"{_ROOM}.storing", "write", 1), 12),
        ((f"{_ROOM}.storing", "write", 2), 12),  # between the codes and the finer vectors
        ((f"{_ROOM}.fitted", "put", 1), 12),  # while the new segment is made to count
        ((f"{_ROOM}.storing", "remove_others", 1), 12),  # it counts, and the old files are still there
    ],
)
def test_a_killed_run_leaves_what_it_committed_and_goes_on(
    at: tuple[str, str, int], committed: int, tmp_path: Path
) -> None:
    documents = texts(12)
    process = start(index_and_die, tmp_path / "killed", documents, at, **LAYOUT)
    assert finish(process) == -signal.SIGKILL
    left = ranking(tmp_path / "killed", k=20)
    assert sorted(name for name, _ in left) == list(documents)[:committed]
    encoder = Hashed()
    done = indexed(tmp_path / "killed", documents, encoder, **LAYOUT)
    assert (done.documents, encoder.encoded) == (12, 12 - committed)
    indexed(tmp_path / "whole", documents, **LAYOUT)
    for query in ("w1 query", "another"):
        assert ranking(tmp_path / "killed", query, 20) == ranking(tmp_path / "whole", query, 20)
    kinds = sorted(path.suffix for path in (tmp_path / "killed" / "segments").iterdir())
    assert kinds == [".codes", ".fine"]


def test_a_kill_while_it_is_brought_up_to_date_keeps_the_old_documents(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(6), **LAYOUT)
    before = ranking(tmp_path / "i")
    changed = {name: f"{text} changed" for name, text in texts(6).items()}
    process = start(index_and_die, tmp_path / "i", changed, (f"{_ROOM}.build", "put", 1))
    assert finish(process) == -signal.SIGKILL
    assert ranking(tmp_path / "i") == before


@pytest.mark.skipif(os.name != "posix", reason="nothing else syncs folders")
def test_nothing_counts_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync, seen = set[int](), os.fsync, list[str]()

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def after_all_is_synced(counts: Callable[..., None]) -> Callable[..., None]:
        def checked(*given: object) -> None:
            written = [path for name in ("segments", "fitted-*") for path in (tmp_path / "i").glob(f"{name}/**/*")]
            assert [path for path in written if path.stat().st_ino not in synced] == []
            seen.extend(path.suffix or path.name for path in written)
            counts(*given)

        return checked

    monkeypatch.setattr(os, "fsync", noted)
    for place in (build, fitted):
        monkeypatch.setattr(place, "put", after_all_is_synced(place.put))
    indexed(tmp_path / "i", texts(60), codec="int8", rescore="float32", rotate=True, factory="HNSW8,SQ8")
    assert {".raw", ".codes", ".fine", ".faiss", ".npy", "codes", "fine"} <= set(seen)
    with closing(Catalogue(tmp_path / "i", write=True)) as catalogue:
        [synchronous], [journal] = (
            catalogue.sql.execute(f"PRAGMA {name}").fetchone() for name in ("synchronous", "journal_mode")
        )
    assert (synchronous, journal) == (2, "delete")  # what is committed is on the disk, and one folder holds it


def test_what_failed_inside_of_a_transaction_is_undone_at_once(tmp_path: Path) -> None:
    with closing(Catalogue(tmp_path, write=True)) as catalogue:
        for name in ("lost", "kept"):
            with suppress(ZeroDivisionError), catalogue.writing():
                catalogue.put(name, "1")
                _ = 1 / (name == "kept")
        assert (catalogue.setting("lost"), catalogue.setting("kept"), catalogue.state()) == (None, "1", 1)


def test_who_reads_undoes_what_a_killed_writer_left(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(6))
    before = ranking(tmp_path / "i")
    with closing(Catalogue(tmp_path / "i", write=True)) as catalogue, suppress(KeyboardInterrupt):
        catalogue.sql.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the end
        with catalogue.writing() as sql:
            sql.executemany("INSERT INTO metadata VALUES (?, 'name', ?)", ((n, "long" * 100) for n in range(2000)))
            sql.execute("DELETE FROM passages")
            shutil.copytree(tmp_path / "i", tmp_path / "killed")
            raise KeyboardInterrupt
    assert (tmp_path / "killed" / f"{SQLITE}-journal").stat().st_size
    assert ranking(tmp_path / "killed") == before == ranking(tmp_path / "i")


def test_a_full_disk_leaves_the_committed_index(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(6), **LAYOUT)
    before = ranking(tmp_path / "i")
    size = max(path.stat().st_size for path in (tmp_path / "i").rglob("*") if path.is_file())
    report = tmp_path / "report"
    assert finish(start(limited, size, report, index_and_die, tmp_path / "i", texts(600), None)) == 0
    told = report.read_text(encoding="utf-8")
    assert told.startswith("DiskError: "), told
    assert "is kept" in told
    after = ranking(tmp_path / "i", k=1000)
    assert set(before) <= set(after)
    encoder = Hashed()
    assert indexed(tmp_path / "i", texts(600), encoder).documents == 600
    assert encoder.encoded == 600 - len(after)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))

    def busy() -> None:
        raise AssertionError

    with locked(tmp_path / "i" / build.LOCK, busy):
        with pytest.raises(ArtifactError, match="another process is writing this index"):
            indexed(tmp_path / "i", texts(4))
        assert len(ranking(tmp_path / "i")) == 3


def test_a_reader_sees_what_is_committed_and_nothing_else(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))
    with Index(tmp_path / "i") as index:
        query = vector_of("w1 text 51")
        assert len(index.search_vector(query)) == 3
        writer = Catalogue(tmp_path / "i", write=True)
        writer.sql.execute("BEGIN IMMEDIATE")
        writer.sql.execute("DELETE FROM passages")
        assert len(index.search_vector(query)) == 3
        writer.sql.execute("ROLLBACK")
        indexed(tmp_path / "i", texts(3, 50))
        assert [hit.id for hit in index.search_vector(query, 1)] == ["d0051"]
        indexed(tmp_path / "i", {}, delete=["d0051"])
        assert "d0051" not in [hit.id for hit in index.search_vector(query)]
        indexed(tmp_path / "i", {"d0000": "w1 text 51"})
        assert [hit.id for hit in index.search_vector(query, 1)] == ["d0000"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_an_index_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))
    (tmp_path / "i" / "index.sqlite").chmod(0o400)
    (tmp_path / "i").chmod(0o500)
    assert len(ranking(tmp_path / "i")) == 3
    (tmp_path / "i").chmod(0o700)


@pytest.mark.parametrize("kind", [".codes", ".fine"])
def test_a_segment_that_was_cut_short_is_refused(kind: str, tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(6), **LAYOUT)
    [path] = (tmp_path / "i" / "segments").glob(f"*{kind}")
    whole = path.read_bytes()
    for content, said in ((whole[:-1], "shorter"), (whole + b"0", "longer")):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=f"{said} than its 6 rows"):
            ranking(tmp_path / "i")


@pytest.mark.parametrize("kind", ["codes", "fine"])
def test_a_codec_that_was_changed_is_refused(kind: str, tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(6), codec="binary", rescore="int8")
    [path] = (tmp_path / "i").glob(f"fitted-*/{kind}/codec.json")
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value | {"kind": "int4"}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"codec.json: missing, or changed since it was written"):
        ranking(tmp_path / "i")


def test_a_database_that_became_empty_is_not_begun_anew(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(6))
    (tmp_path / "i" / SQLITE).write_bytes(b"")
    with pytest.raises(ArtifactError, match="empty, and vectors lie beside it"):
        indexed(tmp_path / "i", texts(2))
    assert list((tmp_path / "i" / "segments").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_whoever_may_read_the_folder_may_read_the_index(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(6), codec="binary", rescore="int8")
    wanted = (tmp_path / "i").stat().st_mode & 0o444
    for path in (tmp_path / "i").rglob("*"):
        assert path.stat().st_mode & 0o444 == wanted, path


def test_an_index_built_anew_in_its_place_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))
    with Index(tmp_path / "i") as index:
        assert len(index.search_vector(vector_of("w1"))) == 3
        shutil.rmtree(tmp_path / "i")
        indexed(tmp_path / "i", texts(2))
        with pytest.raises(ArtifactError, match="was removed, built anew or moved to another encoder since"):
            index.search_vector(vector_of("w1"))


def test_what_a_run_left_that_was_killed_before_it_began_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    for name in (build.LOCK, f".{FILE}.0123abcd.partial"):
        (tmp_path / "i" / name).touch()
    assert indexed(tmp_path / "i", texts(3)).documents == 3


def test_a_structure_of_a_run_that_was_killed_goes(tmp_path: Path) -> None:
    (tmp_path / "i" / "segments").mkdir(parents=True)
    Description(record(Hashed()), Layout()).write(tmp_path / "i")
    Catalogue(tmp_path / "i", write=True).close()
    (tmp_path / "i" / "segments" / "000002.faiss").write_bytes(b"of other rows")
    indexed(tmp_path / "i", texts(3))
    assert len(ranking(tmp_path / "i")) == 3
