"""An index opened for searching."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emb.errors import ArtifactError, UsageError
from emb.runtime.encoder import Encoder
from emb.search.index.candidates import Rows
from emb.search.index.catalogue import Catalogue
from emb.search.index.checksums import REBUILD
from emb.search.index.description import Description, home
from emb.search.index.documents import content_of
from emb.search.index.filters import Where, matching
from emb.search.index.hits import Hit
from emb.search.index.matching import fitting_encoder
from emb.search.index.prefix import require_dim
from emb.search.index.queries import query_vector
from emb.search.index.ranking import DEPTH, Aim, Ranked, best_documents
from emb.search.index.snapshot import Snapshot
from emb.similarity import Vectors

_ASKED = 500  # keys in one statement
_RECORDS = (
    "SELECT (SELECT value FROM settings WHERE name = 'state'), passages.key, id, title, text, content, facts,"
    " start, stop FROM passages JOIN documents ON document = documents.key WHERE passages.key IN"
)
Record = Sequence[Any]  # id, title, text, their hash, metadata as JSON, and where the passage begins and stops


class Index:
    """A folder of `emb index`, with an encoder of queries or without.

    Every search sees the last committed state, also while another process writes. It may be used from several
    threads, which wait for one another.
    """

    def __init__(
        self,
        folder: str | Path,
        query: str | Path | Encoder | None = None,
        *,
        model: Path | None = None,
        any_encoder: bool = False,
    ) -> None:
        """`model` is the folder of a `query` that is loaded: what says whose vectors it gives.

        Raises:
        ArtifactError: no index, one of another version or damaged; or a query encoder that does not fit to it.
        """
        self.folder = home(Path(folder))
        self.description = Description.load(self.folder)
        self.encoder: Encoder | None = None
        if query is not None:
            known = self.description
            self.encoder = fitting_encoder(query, known.encoder, known.layout, model=model, any_encoder=any_encoder)
        self._catalogue, self._lock = Catalogue(self.folder, write=False), threading.Lock()
        self._snapshot = Snapshot(self.folder, self.description)

    def search(self, text: str, k: int = 10, *, where: Where | None = None, depth: int = DEPTH) -> list[Hit]:
        """The `k` documents nearest to a text, the best first; fewer where fewer match.

        Args:
            text: what is searched for.
            k: documents.
            where: values of metadata, one or several under a name, that documents must have.
            depth: candidates that finer vectors put in order, where the index has both.

        Raises:
            UsageError: an empty text, one that the encoder knows nothing of, or no query encoder.
        """
        if self.encoder is None:
            raise UsageError("this index was opened without a query encoder", "name one with --query")
        return self.search_vector(query_vector(self.encoder, text), k, where=where, depth=depth)

    def search_vector(
        self,
        vector: Vectors,
        k: int = 10,
        *,
        where: Where | None = None,
        depth: int = DEPTH,
        dim: int | None = None,
    ) -> list[Hit]:
        """The same for a vector `(dim,)` of the query encoder, or of the documents' own.

        Args:
            dim: search in the first dims alone, every document, of the finest vectors stored; the first such search
                holds them in memory as floats (`prepare`).

        Raises:
            UsageError: `k` below 1, a vector of another dim, metadata that is not there, or a `dim` that the index
                cannot be searched in.
        """
        if k < 1:
            raise UsageError(f"k {k}: not a number of documents", "choose 1 or more")
        if dim is not None:
            self.require_dim(dim)
        with self._lock:
            if not where and (hits := self._by_what_is_loaded(vector, k, depth, dim)) is not None:
                return hits
            with self._catalogue.reading() as sql:
                self._catalogue.require_there()
                self._snapshot.renew(self._catalogue)
                documents = matching(sql, where, self.description.layout.metadata)
                ranked = self._ranked(sql, vector, documents, k, depth, dim)
                return hits_of(ranked, records_of(sql, ranked)[0])

    def _by_what_is_loaded(self, vector: Vectors, k: int, depth: int, dim: int | None) -> list[Hit] | None:
        """Hits of the state that was loaded last; None where another counts by now, as those read last tell: a
        transaction around each search would cost as much as a small search.
        """
        with self._catalogue.outside() as sql:
            self._catalogue.require_there()
            ranked = self._ranked(sql, vector, None, k, depth, dim)
            records, states = records_of(sql, ranked)
            return hits_of(ranked, records) if states == {self._snapshot.state} else None

    def _ranked(
        self, sql: sqlite3.Connection, vector: Vectors, documents: Rows | None, k: int, depth: int, dim: int | None
    ) -> list[Ranked]:
        space, segments = self._snapshot.cut(dim)
        query = space.query(vector, self.description.encoder.dim)
        aims = [Aim(segment, query, segment.allowed(documents)) for segment in segments]
        return best_documents(aims, k, lambda keys: ids_of(sql, keys), depth)

    def require_dim(self, dim: int) -> None:
        """Make sure that it can be searched in its first `dim` dims.

        Raises:
            UsageError: it keeps fewer, or nothing that can be cut.
        """
        require_dim(self.description, dim)

    def prepare(self, dim: int) -> int:
        """Get ready for searches in the first `dim` dims; return the bytes that this takes beside the index's own.

        Raises:
            UsageError: the index cannot be searched in so many.
        """
        self.require_dim(dim)
        with self._lock, self._catalogue.reading():
            self._snapshot.renew(self._catalogue)
            _, segments = self._snapshot.cut(dim)
            return 0 if segments is self._snapshot.segments else sum(each.stored.candidates.size for each in segments)

    def __len__(self) -> int:
        """How many documents there are."""
        with self._lock, self._catalogue.reading() as sql:
            return int(sql.execute("SELECT count(*) FROM documents").fetchone()[0])

    @property
    def memory(self) -> int:
        """Bytes that its vectors, and the keys beside them, take in memory."""
        with self._lock, self._catalogue.reading():
            self._snapshot.renew(self._catalogue)
            return sum(segment.size for segment in self._snapshot.segments)

    @property
    def mapped(self) -> int:
        """Documents that are searched by vectors of another encoder; none, but while an index is being moved."""
        return 0

    @property
    def connection(self) -> sqlite3.Connection:
        """Its SQLite file; use it inside of `state`."""
        return self._catalogue.sql

    @property
    def loaded(self) -> Snapshot:
        """What was loaded last; use it inside of `state`."""
        return self._snapshot

    @contextmanager
    def state(self) -> Iterator[Snapshot]:
        """The last committed state, which stays as it is inside."""
        with self._lock, self._catalogue.reading():
            self._catalogue.require_there()
            self._snapshot.renew(self._catalogue)
            yield self._snapshot

    def snapshot(self) -> Snapshot:
        """The last committed state, loaded."""
        with self.state() as found:
            return found

    def close(self) -> None:
        """Close its files."""
        self._catalogue.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ids_of(sql: sqlite3.Connection, keys: Sequence[int]) -> dict[int, str]:
    """Ids of documents by their keys."""
    found: dict[int, str] = {}
    for start in range(0, len(keys), _ASKED):
        part = keys[start : start + _ASKED]
        found.update(sql.execute(f"SELECT key, id FROM documents WHERE key IN ({','.join('?' * len(part))})", part))
    return found


def records_of(sql: sqlite3.Connection, found: Sequence[Ranked]) -> tuple[dict[Ranked, Record], set[int]]:
    """What the index holds of each document and of its best passage, nothing where the passage is not there; and the
    states that this was read in, one inside of a transaction.
    """
    records, states = dict[int, Record](), set[int]()
    for start in range(0, len(found), _ASKED):
        part = [each.passage for each in found[start : start + _ASKED]]
        rows = sql.execute(f"{_RECORDS} ({','.join('?' * len(part))})", part)
        for state, key, *record in rows:
            states.add(int(state))
            records[key] = record
    return {each: records[each.passage] for each in found if each.passage in records}, states


def hits_of(ranked: Sequence[Ranked], records: Mapping[Ranked, Record]) -> list[Hit]:
    """What a search shows of documents, by their best passages, in their order.

    Raises:
        ArtifactError: a passage is not there, or its document is not the one that was indexed.
    """
    if len(records) < len(ranked):
        raise ArtifactError("the index names a passage that it does not hold", REBUILD)
    return [_hit(rank, found.score, *records[found]) for rank, found in enumerate(ranked, 1)]


def _hit(
    rank: int, score: float, name: str, title: str, text: str, content: bytes, facts: str, start: int, stop: int
) -> Hit:
    if content_of(title, text) != content:
        raise ArtifactError(f"the index is damaged: the document {name!r} has changed since it was written", REBUILD)
    metadata = {} if facts == "{}" else json.loads(facts)
    return Hit(rank, score, name, title, text[start:stop].strip(), start, stop, metadata)
