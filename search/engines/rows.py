"""The passages of a committed index, each with the vector that a search of it scores by."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ArtifactError, UsageError
from emb.search.engines.protocol import Row
from emb.search.index.catalogue import Catalogue
from emb.search.index.description import Description, home
from emb.search.index.loaded import Segment, require_as_written
from emb.search.index.snapshot import Snapshot
from emb.similarity import Vectors

_BLOCK = 1000  # rows that are read at a time
_KEPT = "emb index DOCS --doc MODEL --out INDEX --chunk-tokens N"
_PASSAGES = (
    "SELECT passages.key, id, title, text, start, stop, facts FROM passages"
    " JOIN documents ON document = documents.key WHERE passages.key IN ({})"
)
_LONGEST = """
SELECT id, max(length(CAST(substr(text, start + 1, stop - start) AS BLOB)), length(CAST(title AS BLOB)),
    length(CAST(facts AS BLOB)), length(CAST(id AS BLOB))) AS bytes
FROM passages JOIN documents ON document = documents.key ORDER BY bytes DESC LIMIT 1
"""
# As bytes: SQLite's functions of texts end at a NUL.
_NUL = """
SELECT id, 'its id' FROM documents WHERE instr(CAST(id AS BLOB), x'00')
UNION ALL SELECT id, 'its title' FROM documents WHERE instr(CAST(title AS BLOB), x'00')
UNION ALL SELECT id, 'its text' FROM documents WHERE instr(CAST(text AS BLOB), x'00')
UNION ALL SELECT id, 'its metadata ' || name FROM metadata JOIN documents ON document = documents.key
    WHERE instr(CAST(value AS BLOB), x'00') OR instr(CAST(name AS BLOB), x'00')
LIMIT 1
"""


class CommittedRows:
    """What an index holds, whose lock is held.

    Attributes:
        description: of the index.
        rotation: that was fitted to it, or None.
    """

    def __init__(self, folder: Path) -> None:
        """Raises:
        ArtifactError: no index, a damaged one, or one whose first run has not come to its end.
        """
        folder = home(folder)
        self.description = Description.load(folder)
        self._catalogue = Catalogue(folder, write=False)
        self._snapshot = Snapshot(folder, self.description)
        with self._catalogue.reading():
            self._snapshot.renew(self._catalogue)
        self._require_as_written()
        fitted = self._snapshot.fitted
        if fitted is None or any(segment.row.raw for segment in self._snapshot.segments):
            self.close()
            raise ArtifactError(
                f"{folder}: its vectors are not all stored yet", "run the same `emb index` command again to end it"
            )
        self.rotation = fitted.space.rotation

    def __len__(self) -> int:
        """How many passages there are."""
        return sum(int(segment.members.live.sum()) for segment in self._snapshot.segments)

    def documents(self) -> int:
        """How many documents there are."""
        with self._catalogue.reading() as sql:
            return int(sql.execute("SELECT count(*) FROM documents").fetchone()[0])

    def __iter__(self) -> Iterator[Row]:
        """Every passage."""
        for segment in self._snapshot.segments:
            live = np.flatnonzero(segment.members.live)
            for start in range(0, len(live), _BLOCK):
                yield from self._block(segment, live[start : start + _BLOCK])

    def sample(self, count: int) -> Vectors:
        """At most so many vectors `(rows, dim)`, spread over all rows."""
        step = max(1, -(-len(self) // count))
        parts = [self._vectors(each, np.flatnonzero(each.members.live)[::step]) for each in self._snapshot.segments]
        return np.concatenate(parts)[:count] if parts else np.empty((0, self.description.space.dim), np.float32)

    def require_texts_up_to(self, most_bytes: int, place: object) -> None:
        """Refuse texts that are longer than an engine keeps.

        Raises:
            UsageError: the longest is; its document is named.
        """
        with self._catalogue.reading() as sql:
            name, size = sql.execute(_LONGEST).fetchone() or ("", 0)
        if size > most_bytes:
            raise UsageError(
                f"{place}: keeps texts of up to {most_bytes:,} bytes, and the document {name!r} has one of {size:,}",
                f"cut documents into pieces: {_KEPT}",
            )

    def require_no_nul(self, place: object) -> None:
        """Refuse a NUL character, which an engine does not keep.

        Raises:
            UsageError: there is one; its document and the field are named.
        """
        with self._catalogue.reading() as sql:
            found = sql.execute(_NUL).fetchone()
        if found:
            name, field = found
            raise UsageError(
                f"{place}: keeps no NUL character, and the document {name!r} has one in {field}",
                "take it out of the documents, index them again (of an id: with --delete for the former one) and run"
                " the same command again",
            )

    def close(self) -> None:
        """Close the index's files."""
        self._catalogue.close()

    def _require_as_written(self) -> None:
        """Look at all of its files: a copy would pass their damage on."""
        try:
            for segment in self._snapshot.segments:
                require_as_written(self._snapshot.folder, segment.row, self.description.encoder.dim)
        except ArtifactError:
            self.close()
            raise

    def _vectors(self, segment: Segment, rows: Any) -> Vectors:
        stored = segment.stored
        return np.asarray(stored.codec.decode(np.asarray(stored.codes[rows])), np.float32)

    def _block(self, segment: Segment, rows: Any) -> Iterator[Row]:
        vectors = self._vectors(segment, rows)
        keys = segment.members.passages[rows].tolist()
        with self._catalogue.reading() as sql:
            facts = _facts(sql, keys)
        for key, vector in zip(keys, vectors, strict=True):
            yield _row(vector, *facts[key])


def _facts(sql: sqlite3.Connection, keys: list[int]) -> dict[int, tuple[Any, ...]]:
    return {key: rest for key, *rest in sql.execute(_PASSAGES.format(",".join("?" * len(keys))), keys)}


def _row(vector: Vectors, name: str, title: str, text: str, start: int, stop: int, facts: str) -> Row:
    passage = text[start:stop].strip()
    key = _hash(json.dumps([name, start]).encode())
    stamp = _hash(json.dumps([title, passage, stop, facts]).encode() + vector.astype("<f4").tobytes())
    return Row(key, stamp, name, title, passage, start, stop, json.loads(facts), vector)


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
