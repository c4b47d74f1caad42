"""Shared by the tests of query encoders: a teacher, documents and general texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from query_runs import distil
from tiny import SENTENCES, tiny_bert


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher of four layers, 140 documents and general texts; a cache may lie there too."""
    folder = tmp_path_factory.mktemp("place")
    tiny_bert(folder / "teacher", layers=4)
    rows = [
        {"title": f"{a.split()[0]} {b.split()[-1]}", "text": f"{a} {_crossed(a, b)} {_crossed(b, a)} {b}"}
        for a in SENTENCES
        for b in SENTENCES[::3]
    ]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "general.txt").write_text("\n".join(f"{a} {b}" for a in SENTENCES for b in SENTENCES[::5]))
    return folder


def _crossed(first: str, second: str) -> str:
    """A sentence of its own for every pair: natural pseudo-queries enough for a figure."""
    return " ".join([*first.rstrip(".?!").split()[:4], *second.split()[-4:]])


@pytest.fixture
def query_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache lies in `place`."""
    monkeypatch.setenv("EMB_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def run(place: Path) -> Any:
    """A run with nothing said but the teacher and the documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMB_CACHE", str(place / "cache"))
        return distil(place, place / "run")
