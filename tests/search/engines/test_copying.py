"""What is copied and how it is searched, whatever the engine: here it is a dictionary that notes its calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexing import Hashed, indexed, texts

import emb
from emb.errors import EngineError, UsageError
from emb.search.engines import copying, reader
from emb.search.engines.identity import IDENTITY, STATE
from emb.search.engines.protocol import Conditions, Form, Found, Row
from emb.search.engines.reader import EngineIndex, _settled
from emb.search.engines.rows import CommittedRows, _row
from emb.search.engines.target import read_target
from emb.search.index.description import Description
from emb.similarity import Vectors

PLACE = "milvus:nowhere.db#t"


class Shelf:
    """An engine that keeps everything in memory; `said` are its calls."""

    most_bytes: int | None = None
    keeps_nul = True

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        self.rows: dict[str, Row] = {}
        self.said: list[str] = []

    def hold(self) -> None:
        self.said.append("hold")

    def check(self, form: Form) -> None:
        self.said.append("check")

    def setting(self, name: str) -> str | None:
        return self.settings.get(name)

    def put(self, name: str, text: str) -> None:
        self.said.append(f"put {name}{' whole' if text.endswith('whole') else ''}")
        self.settings[name] = text

    def prepare(self, form: Form) -> None:
        self.said.append("prepare")

    def drop(self) -> None:
        self.settings, self.rows = {}, {}

    def stamps(self) -> Iterator[tuple[str, str]]:
        return iter([(row.key, row.stamp) for row in self.rows.values()])

    def write(self, rows: Sequence[Row], form: Form) -> None:
        self.said.append("write")
        self.rows |= {row.key: row for row in rows}

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            del self.rows[key]

    def finish(self, form: Form) -> None:
        self.said.append("finish")

    def nearest(self, query: Vectors, count: int, where: Conditions, form: Form, depth: int) -> list[Found]:
        """By dot products; equal ones in the order of their keys, which says nothing of documents."""
        self.said.append(f"nearest {count}")
        scored = sorted((-float(row.vector @ query), row.key, row) for row in self.rows.values())
        return [
            Found(-score, row.id, row.title, row.passage, row.start, row.stop, dict(row.metadata))
            for score, _, row in scored[:count]
        ]

    def close(self) -> None:
        self.said.append("close")


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    made = Shelf()

    @contextmanager
    def opened(target: object) -> Iterator[Shelf]:
        yield made

    monkeypatch.setattr(copying, "opened", opened)
    monkeypatch.setattr(reader, "connect", lambda target: made)
    return made


def found(text: str, k: int = 10, **options: Any) -> list[tuple[str, int]]:
    """Document and place of what a search of the shelf finds."""
    with EngineIndex(read_target(PLACE)) as index:
        hits = index.search_vector(Hashed().encode(text), k, **options)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        return [(hit.id, hit.start) for hit in hits]


def test_what_was_begun_in_one_way_of_finding_goes_on_in_it(shelf: Shelf, folder: Path) -> None:
    indexed(folder, texts(5))
    assert emb.sync(folder, PLACE).find == "hnsw"
    assert emb.sync(folder, PLACE, find="exact", overwrite=True).find == "exact"
    assert emb.sync(folder, PLACE).find == "exact"


def test_nothing_is_written_before_it_is_checked_and_it_is_whole_at_the_very_end(shelf: Shelf, folder: Path) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, PLACE)
    expected = ["hold", "check", "put identity", "put state", "prepare", "write", "finish", "put state whole"]
    assert shelf.said == expected
    done = emb.sync(folder, PLACE)
    assert (done.written, done.unchanged, done.removed) == (0, 5, 0)
    assert "write" not in shelf.said[len(expected) :]


def test_rows_of_what_is_written_anew_are_gone(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    indexed(folder, texts(5))
    indexed(tmp_path / "other", texts(3, 10))
    emb.sync(folder, PLACE)
    done = emb.sync(tmp_path / "other", PLACE, overwrite=True)
    assert (done.written, done.removed, len(shelf.rows)) == (3, 0, 3)


@pytest.mark.parametrize("changed", ["model", "dims", "lengths"])
def test_an_open_search_notices_every_other_space(shelf: Shelf, folder: Path, tmp_path: Path, changed: str) -> None:
    other = tmp_path / "other"
    indexed(folder, texts(5))
    indexed(
        other, texts(5), Hashed("dot", False) if changed == "lengths" else None, dim=16 if changed == "dims" else None
    )
    if changed == "model":
        known = Description.load(other)
        replace(known, encoder=replace(known.encoder, fingerprint="g")).write(other)
    emb.sync(folder, PLACE)
    with EngineIndex(read_target(PLACE)) as index:
        emb.sync(other, PLACE, overwrite=True)
        with pytest.raises(EngineError, match="was written anew"):
            index.search_vector(Hashed().encode("w1"))


def test_a_description_of_another_version_is_told_as_one(shelf: Shelf, folder: Path) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, PLACE)
    shelf.settings[IDENTITY] = json.dumps(json.loads(shelf.settings[IDENTITY]) | {"schema": 2})
    with pytest.raises(EngineError, match="written by version 2"):
        emb.sync(folder, PLACE)
    with pytest.raises(EngineError, match="written by version 2"):
        EngineIndex(read_target(PLACE))
    assert shelf.said[-1] == "close"  # who could not be opened holds nothing open


def test_a_copy_that_has_not_ended_is_told(shelf: Shelf, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    indexed(folder, texts(5))
    emb.sync(folder, PLACE)
    found("w1")
    assert "did not come to its end" not in capsys.readouterr().err
    shelf.settings[STATE] = shelf.settings[STATE].replace("whole", "unfinished")
    found("w1")
    assert "did not come to its end" in " ".join(capsys.readouterr().err.split())


def test_a_document_of_many_pieces_does_not_hide_the_others(shelf: Shelf, folder: Path) -> None:
    indexed(folder, {"long": "w1 w2 " * 80, "other": "w3 w4", "third": "w5 w6"}, chunk_tokens=2, overlap=0)
    emb.sync(folder, PLACE)
    assert {name for name, _ in found("w1 w2", 3)} == {"long", "other", "third"}
    assert found("w1 w2", 1) == [("long", 0)]


def test_equal_documents_stand_by_their_ids_wherever_the_piece_begins(shelf: Shelf, folder: Path) -> None:
    indexed(folder, {"b": "w1 w2", "a": "w7 w8 w1 w2"}, chunk_tokens=2, overlap=0)
    emb.sync(folder, PLACE)
    assert found("w1 w2", 2) == [("a", 6), ("b", 0)]


def test_a_condition_that_nothing_meets_is_not_asked(shelf: Shelf, folder: Path) -> None:
    indexed(folder, {"a": {"text": "w1", "lang": "de"}}, metadata=("lang",))
    emb.sync(folder, PLACE)
    assert found("w1", where={"lang": []}) == []
    assert not any(said.startswith("nearest") for said in shelf.said)
    with pytest.raises(UsageError, match="not a number of documents"):
        found("w1", 0)


def test_scores_that_an_engine_rounds_do_not_settle_what_is_best() -> None:
    best = [Found(score, name, "", "", 0, 0, {}) for score, name in ((0.9, "a"), (0.5, "b"))]
    assert not _settled(best, 2, 0.4995)
    assert _settled(best, 2, 0.49)
    assert not _settled(best, 3, 0.1)
    far = [Found(-200.0, "a", "", "", 0, 0, {})]
    assert not _settled(far, 1, -200.1)  # of distances that are large, so is the rounding


@pytest.mark.parametrize("changed", [{"title": "other"}, {"text": "w1 w3"}, {"stop": 4}, {"facts": '{"lang": "de"}'}])
def test_a_stamp_tells_of_all_that_is_in_a_row(changed: dict[str, Any]) -> None:
    row: dict[str, Any] = {"name": "a", "title": "t", "text": "w1 w2", "start": 0, "stop": 5, "facts": "{}"}
    vector = np.ones(4, np.float32)
    one, other = _row(vector, **row), _row(vector, **row | changed)
    assert one.key == other.key
    assert one.stamp != other.stamp
    assert _row(vector, **row | {"start": 1}).key != one.key
    assert _row(2 * vector, **row).stamp != one.stamp


@pytest.mark.parametrize(
    ("document", "size"),
    [
        ({"text": "ü" * 40}, 80),
        ({"text": "w1", "title": "ü" * 40}, 80),
        ({"text": "w1", "lang": "ü" * 40}, 92),  # with its name and the marks of JSON
    ],
    ids=["text", "title", "metadata"],
)
def test_the_longest_text_is_counted_in_bytes(folder: Path, document: dict[str, str], size: int) -> None:
    indexed(folder, {"short": {"text": "w2", "lang": ""}, "long": {"lang": "", **document}}, metadata=("lang",))
    with closing(CommittedRows(folder)) as rows:
        rows.require_texts_up_to(size, PLACE)
        with pytest.raises(UsageError, match=f"'long' has one of {size}"):
            rows.require_texts_up_to(size - 1, PLACE)


def test_a_sample_is_spread_over_all_rows(folder: Path) -> None:
    indexed(folder, texts(20))
    with closing(CommittedRows(folder)) as rows:
        every = np.stack([row.vector for row in rows])
        np.testing.assert_array_equal(rows.sample(5), every[::4])
        assert len(rows.sample(7)) == 7
        assert len(rows.sample(100)) == 20
