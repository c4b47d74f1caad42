"""An index copied into an engine: rows that are new or differ are written, those it has no more are removed.

Each row carries a hash of all that is in it, so that what was done before, also by a run that was killed, is seen in
the engine itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from emb.errors import EngineError
from emb.progress import bar
from emb.search.engines.bits import SAMPLE, warn_of_lost
from emb.search.engines.identity import IDENTITY, STATE, Identity, read_identity
from emb.search.engines.opening import opened
from emb.search.engines.protocol import Engine, Form, Row
from emb.search.engines.rows import CommittedRows
from emb.search.engines.target import Target
from emb.search.index.build import with_lock
from emb.search.index.description import Description

BATCH = 500  # rows written together: what a process that is killed has to do again
FIND = "hnsw"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Synced:
    """What `sync` did.

    Attributes:
        target: where to, without a password.
        documents, passages: that lie there now.
        written, unchanged, removed: passages.
        find: how the nearest are found there.
    """

    target: str
    documents: int
    passages: int
    written: int
    unchanged: int
    removed: int
    find: str


class Known:
    """Keys and stamps that an engine holds, in a file that goes with it: they need not fit into memory."""

    def __init__(self, stamps: Iterable[tuple[str, str]], place: object) -> None:
        """Raises:
        EngineError: a key stands twice.
        """
        self._sql = sqlite3.connect("")
        self._sql.execute("CREATE TABLE known (key TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID")
        try:
            self._sql.executemany("INSERT INTO known VALUES (?, ?)", stamps)
        except sqlite3.IntegrityError:
            self.close()
            raise EngineError(
                f"{place}: a row lies there twice, which `emb sync` never writes", "add --overwrite to write it anew"
            ) from None

    def has(self, row: Row) -> bool:
        """Whether the engine has this row as it is; in any case it is not among the `rest` any more."""
        found = self._sql.execute("DELETE FROM known WHERE key = ? RETURNING stamp", (row.key,)).fetchone()
        return found is not None and bool(found[0] == row.stamp)

    def rest(self) -> Iterator[str]:
        """Keys of rows that the index does not have."""
        for (key,) in self._sql.execute("SELECT key FROM known"):
            yield key

    def close(self) -> None:
        """Remove the file."""
        self._sql.close()


def copy(folder: Path, target: Target, find: str | None, overwrite: bool) -> Synced:
    """Bring `target` to what the index at `folder` holds; `emb.sync` describes it."""
    Description.load(folder)  # before a lock makes a folder

    def work() -> Synced:
        with closing(CommittedRows(folder)) as rows, opened(target) as engine:
            return _copied(rows, engine, target, find, overwrite)

    return with_lock(folder, work, reading=True)


def _copied(rows: CommittedRows, engine: Engine, target: Target, find: str | None, overwrite: bool) -> Synced:
    engine.hold()
    known = None if overwrite else _known_identity(engine, target)
    identity = Identity(rows.description, find or (known.find if known else FIND), rows.rotation)
    _check(identity, known, rows, engine, target)
    if identity.find == "bits":
        warn_of_lost(rows.sample(SAMPLE), len(rows))
    if overwrite:
        engine.drop()
    engine.put(IDENTITY, identity.text())
    engine.put(STATE, identity.state(whole=False))
    engine.prepare(identity.form)
    written, removed = _changed(rows, engine, target, identity.form)
    engine.finish(identity.form)
    engine.put(STATE, identity.state(whole=True))
    total = len(rows)
    return Synced(str(target), rows.documents(), total, written, total - written, removed, identity.find)


def _known_identity(engine: Engine, target: Target) -> Identity | None:
    text = engine.setting(IDENTITY)
    return None if text is None else read_identity(text, target)


def _check(identity: Identity, known: Identity | None, rows: CommittedRows, engine: Engine, target: Target) -> None:
    """Refuse what cannot be copied before anything is written."""
    identity.form.require_known()
    engine.check(identity.form)
    if known:
        identity.require_same(known, target)
    if engine.most_bytes:
        rows.require_texts_up_to(engine.most_bytes, target)
    if not engine.keeps_nul:
        rows.require_no_nul(target)


def _changed(rows: CommittedRows, engine: Engine, target: Target, form: Form) -> tuple[int, int]:
    """Write and remove what differs; how many rows of each."""
    written = removed = 0
    with closing(Known(engine.stamps(), target)) as known, bar("copying", len(rows)) as advance:
        for batch in _batches(rows):
            changed = [row for row in batch if not known.has(row)]
            if changed:
                engine.write(changed, form)
            written += len(changed)
            advance(len(batch))
        for keys in _batches(known.rest()):
            engine.remove(keys)
            removed += len(keys)
    return written, removed


def _batches(values: Iterable[_T]) -> Iterator[Sequence[_T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, BATCH)):
        yield batch
