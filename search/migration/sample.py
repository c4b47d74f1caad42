"""Documents of an index that are looked at before it is moved: their texts, and the vectors that it keeps of them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.errors import ArtifactError, DataError
from emb.search.index.build import as_read
from emb.search.index.documents import Entry
from emb.search.index.reader import Index
from emb.search.index.snapshot import Snapshot
from emb.search.migration.trial import FOLDS, Rows
from emb.similarity import Vectors

RIVALS = 20_000  # further documents at most, which cost no encoding
_ASKED = 500  # keys in one statement


@dataclass(frozen=True)
class Sample:
    """Documents, their pieces as an encoder reads them, whose pieces they are (`owner`, rows of documents, ascending),
    and the vectors `(pieces, dim)` that the index keeps of them, decoded. `rivals` `(pieces, dim)` are vectors of
    further documents, `rival_owner` whose pieces they are.
    """

    entries: Sequence[Entry]
    texts: Sequence[str]
    owner: Rows
    old: Vectors
    rivals: Vectors
    rival_owner: Rows


def draw(index: Index, count: int, seed: int, first: Collection[str] = ()) -> Sample:
    """`count` documents in an order drawn by `seed`; those of the ids `first` are among them, as far as there is room.

    Raises:
        ArtifactError: an index whose first run was not finished: its vectors are not stored yet.
        DataError: too few documents.
    """
    with index.state() as state:
        if state.fitted is None:
            raise ArtifactError(
                f"{index.folder}: holds no stored vectors",
                "index documents first: emb index DOCS --doc MODEL --out DIR",
            )
        sql = index.connection
        known = [
            (name not in first, _lot(seed, name), key) for key, name in sql.execute("SELECT key, id FROM documents")
        ]
        drawn = [key for *_, key in sorted(known)[: count + RIVALS]]
        chosen = sorted(drawn[:count])
        if len(chosen) < FOLDS:
            raise DataError(
                f"{len(chosen)} documents are too few to fit a map to and try it on others",
                f"look at {FOLDS} or more with --sample, or build the index anew: emb index DOCS --doc MODEL --out DIR",
            )
        pieces: list[tuple[Any, ...]] = []
        for start in range(0, len(chosen), _ASKED):
            part = chosen[start : start + _ASKED]
            pieces += sql.execute(
                "SELECT documents.key, id, title, text, facts, start, stop, segment, row"
                " FROM documents JOIN passages ON document = documents.key"
                f" WHERE documents.key IN ({','.join('?' * len(part))}) ORDER BY documents.key, start",
                part,
            )
        others = _places(sql, sorted(drawn[count:]))
        owner = np.unique([key for key, *_ in others], return_inverse=True)[1]
        rivals = (_decoded(state, [place for _, *place in others]), owner.astype(np.int64))
        return _sample(pieces, _decoded(state, [(piece[7], piece[8]) for piece in pieces]), rivals)


def entry_of(name: str, title: str, text: str, facts: str) -> Entry:
    """A document as the catalogue has it."""
    return Entry(f"document {name}", name, True, title, text, json.loads(facts))


def _lot(seed: int, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8, key=str(seed).encode()).digest()


def _places(sql: sqlite3.Connection, keys: Sequence[int]) -> list[tuple[int, int, int]]:
    """Document, segment and row of every piece of documents (keys, sorted), in their order."""
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(keys), _ASKED):
        part = keys[start : start + _ASKED]
        found += sql.execute(
            f"SELECT document, segment, row FROM passages WHERE document IN ({','.join('?' * len(part))})"
            " ORDER BY document, start",
            part,
        )
    return found


def _sample(pieces: Sequence[tuple[Any, ...]], old: Vectors, rivals: tuple[Vectors, Rows]) -> Sample:
    entries: dict[int, Entry] = {}
    for key, name, title, text, facts, *_ in pieces:
        entries.setdefault(key, entry_of(name, title, text, facts))
    rows = {key: row for row, key in enumerate(entries)}
    texts = [as_read(title, text, (start, stop)) for _, _, title, text, _, start, stop, *_ in pieces]
    owner = np.asarray([rows[piece[0]] for piece in pieces], np.int64)
    return Sample(list(entries.values()), texts, owner, old, *rivals)


def _decoded(state: Snapshot, places: Sequence[Sequence[int]]) -> Vectors:
    """The finest vectors `(pieces, dim)` that are stored at places, each a segment and a row."""
    found = np.empty((len(places), state.space.dim), np.float32)
    numbers, rows = np.asarray(places, np.int64).reshape(-1, 2).T
    for segment in state.segments:
        here = np.flatnonzero(numbers == segment.row.id)
        if len(here):
            found[here] = segment.stored.codec.decode(segment.stored.codes[rows[here]])
    return found
