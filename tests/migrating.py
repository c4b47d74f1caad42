"""Indexes moved between encoders whose vectors are made from hashes of the texts, in one space or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from encoding import dying_at
from indexing import DIM, Hashed, indexed, record, texts

from emb.search.index import build
from emb.search.index.mixed import MixedIndex
from emb.search.index.moving import Moving
from emb.search.migration import Migrated
from emb.search.migration.run import Models, Wanted, move_with
from emb.similarity import Vectors, unit
from emb.tokens import Cut

COUNT = 120
BLOCK = 16
WANTED = Wanted("new", sample=100)


def turn(new: int = DIM, old: int = DIM) -> Vectors:
    """A rotation `(new, old)`, or a part of one."""
    wide = max(new, old)
    return np.linalg.qr(np.random.default_rng(7).standard_normal((wide, wide)))[0][:new, :old]


class Turned(Hashed):
    """The hashed vectors times a matrix; with `noise`, as much of another hash is added. `documents` counts those."""

    def __init__(self, matrix: Vectors, noise: float = 0.0, similarity: str = "cosine") -> None:
        super().__init__(similarity, dim=len(matrix))
        self.matrix, self.noise, self.old, self.documents = matrix, noise, Hashed(), 0

    def encode(self, texts: Any, *, count: Callable[[Cut], None] | None = None, **options: Any) -> Any:
        """See `Encoder`."""
        several = [texts] if isinstance(texts, str) else list(texts)
        self.documents += len(several) if options.get("kind") == "document" else 0
        found = self.old.encode(several, count=count) @ self.matrix.T
        if self.noise:
            found = found + self.noise * Hashed(dim=self.dim).encode([f"noise {text}" for text in several])
        found = unit(found)
        return found[0] if isinstance(texts, str) else found


def models(encoder: Hashed, fingerprint: str = "new") -> Models:
    """The new encoder for both sides."""
    return Models(encoder, encoder, replace(record(encoder, fingerprint), name="new"), Path("new"))


def begun(folder: Path, count: int = COUNT, **layout: Any) -> Path:
    """An index of the old encoder."""
    indexed(folder, texts(count), **layout)
    return folder


def moved(folder: Path, encoder: Hashed, wanted: Wanted = WANTED, fingerprint: str = "new") -> Migrated:
    """Move it, or go on with that, in small blocks."""
    return move_with(folder, wanted, models(encoder, fingerprint))


def move_and_die(folder: Path, matrix: Vectors, at: tuple[str, str, int]) -> None:
    """Move it until the process kills itself at a call: module, function, number."""
    build.BLOCK = BLOCK
    dying_at(*at)
    moved(folder, Turned(matrix), replace(WANTED, sample=20))


def mixed(folder: Path, encoder: Hashed) -> MixedIndex:
    """The index as queries of the new encoder find it."""
    moving = Moving.load(folder)
    assert moving is not None
    return MixedIndex(folder, moving, encoder)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an index, locks left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("lock")
    }
