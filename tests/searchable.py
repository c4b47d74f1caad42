"""A bundle, further exports of its student, and an index of its space, made once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tiny
from web_pages import BROKEN, NASTY

import emb


@dataclass(frozen=True)
class Searchable:
    """What a search is served of; `exports` by their names, of 32 dims and of 16."""

    teacher: Path
    bundle: Path
    index: Path
    exports: dict[str, Path]


def made(place: Path) -> Searchable:
    """All of it, below the folder `place`."""
    teacher = tiny.tiny_bert(place / "teacher", layers=2)
    (place / "texts.txt").write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    how = {"pairs": [[1, 16], [1, 32], [2, 32]], "training.epochs": 0}
    run = emb.distill(teacher, data=[place / "texts.txt"], layers=2, out=place / "run", overrides=how)
    exported = emb.export(run.student, layers=[1, 2], dims=[16, 32], out=place / "exports")
    exports = {each.name: each for each in exported}
    bundle = emb.bundle(exports["1x32"], out=place / "both")
    emb.index(documents(place / "docs.jsonl"), place / "index", bundle, metadata=["part"])
    return Searchable(teacher, bundle, place / "index", exports)


def documents(path: Path) -> Path:
    """Twenty-two, two of which would run scripts if their text became HTML."""
    rows = [{"id": str(row), "text": text, "part": "ab"[row % 2]} for row, text in enumerate(tiny.SENTENCES)]
    rows += [{"id": "nasty", "title": NASTY, "text": "markup in a title", "part": "c"}]
    rows += [{"id": "broken", "title": "apples", "text": BROKEN, "part": "c"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
