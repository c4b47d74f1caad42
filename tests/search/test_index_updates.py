"""What an index holds of documents that come again, change or go."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from indexing import Hashed, indexed, record, texts, vector_of

from emb.search.index import build
from emb.search.index.catalogue import FILE
from emb.search.index.documents import Columns
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with


@pytest.mark.parametrize("block", [1, 64])
def test_of_documents_without_ids_that_are_the_same_the_last_counts(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "BLOCK", block)
    rows = [{"text": "w1", "year": year} for year in (1999, 2000, 2001)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    choices = Choices([str(tmp_path / "docs.jsonl")], Columns(), layout={"metadata": ("year",)})
    assert index_with(tmp_path / "i", choices, Hashed(), record(Hashed())).documents == 1
    with Index(tmp_path / "i") as index:
        assert [hit.metadata for hit in index.search_vector(vector_of("w1"))] == [{"year": "2001"}]


def test_a_title_that_changes_is_shown(tmp_path: Path) -> None:
    indexed(tmp_path / "i", {"a": {"text": "w1", "title": "old"}})
    assert indexed(tmp_path / "i", {"a": {"text": "w1", "title": "new"}}).updated == 1
    with Index(tmp_path / "i") as index:
        [hit] = index.search_vector(vector_of("new w1"))
    assert (hit.title, hit.score) == ("new", pytest.approx(1, abs=1e-5))


def test_what_is_removed_leaves_nothing_and_counts_once(tmp_path: Path) -> None:
    documents = {name: {"text": text, "year": 1999} for name, text in texts(5).items()}
    indexed(tmp_path / "i", documents, metadata=("year",))
    assert indexed(tmp_path / "i", {}, delete=["d0001", "d0001", "nobody"]).deleted == 1
    with closing(sqlite3.connect(tmp_path / "i" / FILE)) as sql:
        counts = [
            sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("documents", "metadata", "passages")
        ]
    assert counts == [4, 4, 4]


def test_what_is_removed_and_given_again_is_there(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))
    done = indexed(tmp_path / "i", {"d0001": "w1 text 1"}, delete=["d0001", "d0002"])
    assert (done.deleted, done.added, done.unchanged, done.documents) == (2, 1, 0, 2)
