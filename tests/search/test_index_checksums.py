"""Bytes that have changed since an index was written are noticed: when it is opened, or when somebody asks."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from indexing import BLOCK, Hashed, index_and_die, indexed, ranking, record, texts, write
from migrating import WANTED, Turned, begun, moved, turn

from emb.cli import cli
from emb.commands import console
from emb.errors import ArtifactError, EmbError
from emb.search.engines.rows import CommittedRows
from emb.search.index import build, checksums
from emb.search.index.catalogue import FILE as SQLITE
from emb.search.index.catalogue import Catalogue
from emb.search.index.documents import Columns
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with
from emb.search.index.whole import prove

LAYOUT = {"codec": "binary", "rescore": "float32"}
KINDS = {".codes": LAYOUT, ".fine": LAYOUT, ".faiss": {"codec": "int8", "factory": "HNSW8,SQ8"}}


def _flip(folder: Path, kind: str) -> Path:
    """Change one bit of a segment's file, among its numbers."""
    [path] = (folder / "segments").glob(f"*{kind}")
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)
    return path


def _without_checksums(folder: Path) -> None:
    """As an older version wrote it."""
    with closing(sqlite3.connect(folder / SQLITE)) as sql, sql:
        sql.execute("DELETE FROM settings WHERE name LIKE 'sha256 %'")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_that_changed_in_a_small_file_is_noticed_when_it_is_opened(kind: str, tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(40), **KINDS[kind])
    path = _flip(tmp_path / "i", kind)
    with pytest.raises(ArtifactError, match=f"{path.name}: missing, or changed since it was written"):
        ranking(tmp_path / "i")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_that_changed_in_a_large_file_is_noticed_where_all_of_it_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "SMALL", 0)
    indexed(tmp_path / "i", texts(40), **KINDS[kind])
    path = _flip(tmp_path / "i", kind)
    assert len(ranking(tmp_path / "i")) == 10  # nobody waits for it
    for look in (prove, CommittedRows):
        with pytest.raises(ArtifactError, match=path.name):
            look(tmp_path / "i")


def test_damage_is_not_sealed_when_segments_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "SMALL", 0)
    indexed(tmp_path / "i", texts(40), **LAYOUT)
    path = _flip(tmp_path / "i", ".fine")
    with pytest.raises(ArtifactError, match=path.name):
        indexed(tmp_path / "i", {}, delete=list(texts(20)))
    with pytest.raises(ArtifactError, match=path.name):
        prove(tmp_path / "i")


def test_what_is_as_it_was_written_is_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BLOCK", BLOCK)
    indexed(tmp_path / "i", texts(40), rotate=True, **LAYOUT)
    size = 40 * (4 * 32 + 4)
    found = prove(tmp_path / "i")
    assert (found.documents, found.passages, found.files, found.bytes) == (40, 40, 2, size)
    for number in range(8):  # until they are put together
        indexed(tmp_path / "i", texts(2, 100 + number))
        prove(tmp_path / "i")
    indexed(tmp_path / "i", {}, delete=[*list(texts(30)), *list(texts(7, 100))])
    assert prove(tmp_path / "i").documents == 12
    with closing(Catalogue(tmp_path / "i", write=False)) as catalogue:
        kept = set(checksums.known(catalogue.sql))
    assert kept == {path.name for path in (tmp_path / "i" / "segments").iterdir()}


def test_vectors_of_a_run_that_was_killed_are_proven_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distilling import finish, start

    monkeypatch.setattr(build, "BLOCK", BLOCK)
    at = ("emb.search.index.build", "append", 3)
    assert finish(start(index_and_die, tmp_path / "i", texts(12), at)) < 0
    [raw] = (tmp_path / "i" / "segments").glob("*.raw")
    raw.write_bytes(raw.read_bytes() + b"not committed")
    assert (prove(tmp_path / "i").documents, len(ranking(tmp_path / "i"))) == (6, 6)
    content = bytearray(raw.read_bytes())
    content[100] ^= 4
    raw.write_bytes(content)
    for look in (prove, ranking):
        with pytest.raises(ArtifactError, match=raw.name):
            look(tmp_path / "i")
    with pytest.raises(ArtifactError, match=raw.name):
        indexed(tmp_path / "i", texts(12))


def test_an_index_of_a_version_without_checksums_is_searched_and_says_that_it_has_none(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(40), **LAYOUT)
    before = ranking(tmp_path / "i")
    _without_checksums(tmp_path / "i")
    assert ranking(tmp_path / "i") == before
    with pytest.raises(ArtifactError, match="2 of its 2 files of vectors were written by a version without checksums"):
        prove(tmp_path / "i")
    indexed(tmp_path / "i", texts(2, 100))
    with pytest.raises(ArtifactError, match="2 of its 4 files of vectors were written by a version without"):
        prove(tmp_path / "i")
    indexed(tmp_path / "i", {}, delete=list(texts(30)))  # written anew
    assert prove(tmp_path / "i").files == 2


def test_both_halves_of_an_index_that_is_being_moved_are_looked_at(tmp_path: Path) -> None:
    begun(tmp_path / "i")
    moved(tmp_path / "i", Turned(turn()), WANTED)
    assert (prove(tmp_path / "i").documents, prove(tmp_path / "i").files) == (120, 2)
    path = _flip(tmp_path / "i" / "space-1", ".codes")
    with pytest.raises(ArtifactError, match=path.name):
        prove(tmp_path / "i")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE documents SET text = 'w2' WHERE id = 'd0001'", "the document 'd0001' has changed"),
        ('UPDATE documents SET facts = \'{"year": "2\'', "the document 'd0000' has changed"),
        ("UPDATE metadata SET value = '3'", "the document 'd0000' has changed"),
        ("UPDATE passages SET stop = 99999 WHERE key = 2", "the passage 2 of 'd0001' stands where there is none"),
        ("UPDATE passages SET row = -1 WHERE key = 2", "the passage 2 of 'd0001' stands where there is none"),
        ("UPDATE passages SET document = 999 WHERE key = 2", "the passage 2 of None stands where there is none"),
        ("UPDATE settings SET value = 'no' WHERE name = 'fitted'", "what it says of its codecs"),
    ],
)
def test_what_the_catalogue_says_is_held_against_itself(statement: str, said: str, tmp_path: Path) -> None:
    _with_years(tmp_path, 4)
    with closing(sqlite3.connect(tmp_path / "i" / SQLITE)) as sql, sql:
        sql.execute(statement)
    with pytest.raises(ArtifactError, match=said):
        prove(tmp_path / "i")


def test_a_text_that_changed_is_not_shown_as_what_was_found(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(4))
    with closing(sqlite3.connect(tmp_path / "i" / SQLITE)) as sql, sql:
        sql.execute("UPDATE documents SET text = 'w9 text 1' WHERE id = 'd0001'")
    with pytest.raises(ArtifactError, match="the document 'd0001' has changed since it was written"):
        ranking(tmp_path / "i")


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_catalogue_is_an_error_and_no_traceback(seed: int, tmp_path: Path) -> None:
    _with_years(tmp_path, 40)
    source, chosen = (tmp_path / "i" / SQLITE).read_bytes(), random.Random(seed)
    for _ in range(5):
        content = bytearray(source)
        start = chosen.randrange(len(content))
        size = chosen.choice([1, 64, 4096])
        content[start : start + size] = chosen.randbytes(len(content[start : start + size]))
        (tmp_path / "i" / SQLITE).write_bytes(content)
        for look in (_everything, prove):
            with suppress(EmbError):
                look(tmp_path / "i")
        with suppress(EmbError):
            indexed(tmp_path / "i", texts(3, 39), delete=["d0003"])


def _with_years(place: Path, count: int) -> None:
    documents = {name: {"text": text, "year": "1999"} for name, text in texts(count).items()}
    choices = Choices([str(write(place / "i.jsonl", documents))], Columns(), (), {**LAYOUT, "metadata": ("year",)})
    index_with(place / "i", choices, Hashed(), record(Hashed()))


def _everything(folder: Path) -> None:
    with Index(folder) as index:
        index.search_vector(Hashed().encode("w1"), 50, where={"year": "1999"})
        _ = len(index), index.memory


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    indexed(tmp_path / "i", texts(40), **LAYOUT)
    capsys.readouterr()
    assert console.run(cli, ["validate", str(tmp_path / "i")]) == 0
    assert "every byte is as it was written: 40 documents, 40 vectors in 2 files" in capsys.readouterr().out
    assert console.run(cli, ["validate", str(tmp_path / "i"), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["documents"], told["files"]) == (40, 2)
    assert console.run(cli, ["validate", str(tmp_path / "i"), "--min-cosine", "0.9"]) == 2
    assert "leave out --against, --data and --min-cosine" in capsys.readouterr().err
    path = _flip(tmp_path / "i", ".fine")
    assert console.run(cli, ["validate", str(tmp_path / "i")]) == 2
    assert f"{path.name} has changed" in " ".join(capsys.readouterr().err.split())
    path.unlink()
    assert console.run(cli, ["validate", str(tmp_path / "i")]) == 2
    assert f"{path.name} is missing" in " ".join(capsys.readouterr().err.split())
