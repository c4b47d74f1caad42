"""One segment in memory: which of its rows count, whose they are, and what finds the nearest of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from emb.quantize.vectors.base import Codec, Codes
from emb.quantize.vectors.scalar import Float32Codec
from emb.search.index import checksums
from emb.search.index.bounded import Bounded
from emb.search.index.candidates import Candidates, FaissFlat, Hamming, Mask, Rows, Scored
from emb.search.index.fitted import Fitted
from emb.search.index.graphs import Graph
from emb.search.index.segments import CODES, FINE, GRAPH, RAW, mapped, place
from emb.search.index.space import Space
from emb.search.index.verify import scores_of
from emb.similarity import Vectors


@dataclass(frozen=True)
class SegmentRow:
    """A segment as the catalogue has it; `rows` grows with what is added, `version` changes with what is removed.

    `sealed` are the checksums of its files by their kinds; an older index has none.
    """

    id: int
    raw: bool
    rows: int
    version: int
    sealed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Members:
    """Whose rows they are: keys of passages and of documents, each `(rows,)`, -1 where a row is dead."""

    passages: Rows
    documents: Rows

    @cached_property
    def live(self) -> Mask:
        """Rows that count."""
        return np.asarray(self.passages >= 0)


@dataclass(frozen=True)
class Stored:
    """Vectors of a segment: what finds candidates, and the finest that are stored of them."""

    candidates: Candidates
    codec: Codec
    codes: Codes


class Segment:
    """A segment that can be searched."""

    def __init__(self, row: SegmentRow, members: Members, stored: Stored, space: Space) -> None:
        self.row, self.members, self.stored, self.space = row, members, stored, space

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.stored.candidates.size + self.members.passages.nbytes + self.members.documents.nbytes

    def allowed(self, documents: Rows | None) -> Mask:
        """Rows that count, of these documents (keys, sorted) alone where they are given."""
        live = self.members.live
        return live if documents is None else live & np.isin(self.members.documents, documents)

    def scores(self, query: Vectors, rows: Rows) -> Vectors:
        """Scores of rows by the finest vectors."""
        return scores_of(query, self.stored.codec, self.stored.codes, rows, self.space.measure)


def segments_of(sql: sqlite3.Connection) -> list[SegmentRow]:
    """Every segment that counts, the oldest first."""
    sealed: dict[int, dict[str, str]] = {}
    for name, digest in checksums.known(sql).items():
        number, _, kind = name.partition(".")
        if number.isdecimal():
            sealed.setdefault(int(number), {})[f".{kind}"] = digest
    found = sql.execute("SELECT id, raw, rows, version FROM segments ORDER BY id")
    return [
        SegmentRow(number, bool(raw), rows, version, sealed.get(number, {})) for number, raw, rows, version in found
    ]


def members_of(sql: sqlite3.Connection, row: SegmentRow) -> Members:
    """Whose the segment's rows are."""
    found = sql.execute("SELECT row, key, document FROM passages WHERE segment = ?", (row.id,))
    table = np.fromiter(found, np.dtype((np.int64, 3)))
    passages, documents = np.full((2, row.rows), -1, np.int64)
    passages[table[:, 0]], documents[table[:, 0]] = table[:, 1], table[:, 2]
    return Members(passages, documents)


def raw_vectors(index: Path, row: SegmentRow, dim: int) -> Codes:
    """The encoder's own vectors `(rows, encoder's dim)` of a segment that is not stored yet."""
    return mapped(place(index, row.id, RAW), row.rows, dim, np.float32, whole=False, digest=row.sealed.get(RAW))


def codes_of(index: Path, row: SegmentRow, codec: Codec, kind: str) -> Codes:
    """The codes `(rows, width)` of a segment that is stored; `kind` is the file's."""
    empty = codec.encode(np.zeros((1, codec.dim), np.float32))
    return mapped(place(index, row.id, kind), row.rows, empty.shape[1], empty.dtype, digest=row.sealed.get(kind))


def require_as_written(index: Path, row: SegmentRow, dim: int) -> None:
    """Compare all of a segment's files with their checksums, large ones as well; `dim` is the encoder's.

    Raises:
        ArtifactError: one is missing, or has changed since it was written.
    """
    for kind, digest in row.sealed.items():
        path = place(index, row.id, kind)
        found = path.stat().st_size if path.is_file() else -1
        checksums.require(path, digest, 4 * dim * row.rows if kind == RAW else found, large=True)


def stored_of(index: Path, row: SegmentRow, fitted: Fitted | None, space: Space, dim: int) -> Stored:
    """The segment's vectors, opened; those that are not stored yet are put into `space` and looked at one by one."""
    if row.raw or fitted is None:
        codec, vectors = Float32Codec(space.dim), space.apply(raw_vectors(index, row, dim))
        return Stored(FaissFlat(codec, vectors, space.measure), codec, vectors)
    codes = codes_of(index, row, fitted.codec, CODES)
    fine = codes_of(index, row, fitted.fine, FINE) if fitted.fine else codes
    # Still mapped; but rows of a memmap are memmaps, which takes as long to say as to read them.
    return Stored(_candidates(index, row, fitted, codes), fitted.finest, np.asarray(fine))


def _candidates(index: Path, row: SegmentRow, fitted: Fitted, codes: Codes) -> Candidates:
    graph = place(index, row.id, GRAPH)
    if graph.is_file():
        checksums.require(graph, row.sealed.get(GRAPH), graph.stat().st_size)
        return Graph(graph, fitted.codec, codes, fitted.space.measure)
    if fitted.codec.kind == "float32" and fitted.space.measure == "dot" and fitted.space.length_one:
        return Bounded(codes)
    if fitted.codec.kind != "binary":
        return FaissFlat(fitted.codec, codes, fitted.space.measure)
    return Hamming(fitted.codec, codes) if fitted.fine else Scored(fitted.codec, codes)
