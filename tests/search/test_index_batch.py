"""Queries from a file, what each finds to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from indexing import Hashed, indexed, texts

from emb.errors import DataError
from emb.search.index.batch import search_file
from emb.search.index.reader import Index


def _found(folder: Path, queries: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    source, out = folder / "queries.jsonl", folder / "run.jsonl"
    source.write_text("".join(json.dumps(each) + "\n" for each in queries), encoding="utf-8")
    with Index(folder / "i") as index:
        index.encoder = Hashed()
        assert search_file(index, source, out, 3, **options) == len(queries)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_queries_without_ids_are_numbered(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(5))
    rows = _found(tmp_path, [{"text": "w1"}, {"text": "w2", "_id": "named"}, {"text": "w3", "_id": None}])
    assert [row["query"] for row in rows] == ["1", "named", "3"]
    assert [hit["rank"] for hit in rows[0]["hits"]] == [1, 2, 3]


def test_filters_hold_for_every_query(tmp_path: Path) -> None:
    documents = {name: {"text": text, "half": number % 2} for number, (name, text) in enumerate(texts(8).items())}
    indexed(tmp_path / "i", documents, metadata=("half",))
    rows = _found(tmp_path, [{"text": "w1"}, {"text": "w2"}], where={"half": "1"})
    assert all(int(hit["id"][1:]) % 2 for row in rows for hit in row["hits"])
    assert [len(row["hits"]) for row in rows] == [3, 3]


def test_a_file_without_queries_leaves_nothing(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(5))
    with pytest.raises(DataError, match=r"queries.jsonl: holds no query"):
        _found(tmp_path, [])
    assert not (tmp_path / "run.jsonl").exists()
