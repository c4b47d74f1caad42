"""An index on its way to another encoder, searched by the new one: documents that are there, and those on their way.

A document counts in the new index if the old one holds the very same; what was changed or removed there since is found
as it is there. Vectors of the old index are asked by the query that the map makes of the new one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from emb.errors import ArtifactError, UsageError
from emb.runtime.encoder import Encoder
from emb.search.index import checksums
from emb.search.index.candidates import Rows
from emb.search.index.description import home
from emb.search.index.filters import Where, matching
from emb.search.index.hits import Hit
from emb.search.index.lengths import lengths_of
from emb.search.index.loaded import Members, Segment
from emb.search.index.moving import Moving
from emb.search.index.ranking import DEPTH, Aim, Reached, best_documents
from emb.search.index.reader import Index, hits_of, ids_of, records_of
from emb.search.index.snapshot import Snapshot
from emb.similarity import Vectors

PAIRS = (
    "SELECT old.key, new.key FROM documents AS old JOIN moved.documents AS new ON old.id = new.id"
    " WHERE old.content = new.content AND old.facts = new.facts"
)


class MixedIndex(Index):
    """As an `Index`, for queries of the new encoder; when the migration is finished, it goes on with the new one."""

    def __init__(
        self,
        folder: str | Path,
        moving: Moving,
        query: str | Path | Encoder | None,
        *,
        model: Path | None = None,
        any_encoder: bool = False,
    ) -> None:
        """Raises:
        ArtifactError: as `Index`; or no map is good enough, and documents are on their way.
        """
        super().__init__(folder)
        self.root, self.moving = Path(folder), moving
        self.new = Index(self.root / moving.at, query, model=model, any_encoder=any_encoder)
        self.old_name = self.description.encoder.name
        self.encoder, self.description = self.new.encoder, self.new.description
        self._matrix = moving.matrix(self.root)
        self._catalogue.attach(self.new.folder, "moved")
        self._state = (-1, -1)
        self._moved: dict[int, int] = {}
        self._there: list[Segment] = []
        self._on_their_way: list[tuple[Segment, Vectors | None]] = []
        self._waiting = 0
        try:
            self._require_a_way(self.mapped)
        except ArtifactError:
            self.close()
            raise

    @property
    def mapped(self) -> int:
        """Documents that are searched through the map."""
        if self._finished():
            return 0
        with self._states():
            return self._waiting

    def search_vector(
        self, vector: Vectors, k: int = 10, *, where: Where | None = None, depth: int = DEPTH, dim: int | None = None
    ) -> list[Hit]:
        """See `Index`; `vector` is one of the new encoder's."""
        if self._finished():
            return self.new.search_vector(vector, k, where=where, depth=depth, dim=dim)
        if dim is not None:
            self.require_dim(dim)
        if k < 1:
            raise UsageError(f"k {k}: not a number of documents", "choose 1 or more")
        with self._states() as sql:
            self._require_a_way(self._waiting)
            aims = self._aims(vector, matching(sql, where, self.description.layout.metadata))
            ranked = best_documents(aims, k, lambda keys: ids_of(sql, keys), depth)
            there = [each for each in ranked if each.document in self._moved]
            here = [each for each in ranked if each.document not in self._moved]
            return hits_of(ranked, records_of(self.new.connection, there)[0] | records_of(sql, here)[0])

    def require_dim(self, dim: int) -> None:
        """See `Index`; a map leads to whole vectors alone."""
        whole = self.description.space.dim
        if self._finished():
            self.new.require_dim(dim)
        elif dim != whole:
            raise UsageError(
                f"dim {dim}: an index on its way to another encoder is searched in all of its {whole} dims",
                "let `emb migrate` move all documents, and finish it",
            )

    def prepare(self, dim: int) -> int:
        """See `Index`."""
        self.require_dim(dim)
        return self.new.prepare(dim) if self._finished() else 0

    @property
    def memory(self) -> int:
        """Bytes of both."""
        return self.new.memory if self._finished() else super().memory + self.new.memory

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self.new) if self._finished() else super().__len__()

    def close(self) -> None:
        """Close the files of both."""
        self.new.close()
        super().close()

    def _require_a_way(self, waiting: int) -> None:
        if self._matrix is None and waiting:
            raise ArtifactError(
                f"{self.root}: {waiting:,} documents are not encoded by {self.description.encoder.name} yet, and no map"
                f" from {self.old_name} keeps enough of a search",
                f"search with a query encoder of {self.old_name} until `emb migrate` has moved all of them",
            )

    def _finished(self) -> bool:
        """Whether the new index is all there is now.

        Raises:
            ArtifactError: the migration was undone.
        """
        if home(self.root) == self.new.folder:
            return True
        if Moving.load(self.root) != self.moving:
            raise ArtifactError(
                f"{self.root}: its migration to {self.description.encoder.name} was undone since it was opened",
                f"open it again, with a query encoder of {self.old_name}",
            )
        return False

    @contextmanager
    def _states(self) -> Iterator[sqlite3.Connection]:
        """One committed state of both."""
        with ExitStack() as both:
            both.enter_context(self._lock)
            sql = both.enter_context(self._catalogue.reading())
            new = both.enter_context(self.new.state())
            self._snapshot.renew(self._catalogue)
            if self._state != (state := (self._snapshot.state, new.state)):
                self._pair(sql, new)
                self._state = state
            yield sql

    def _pair(self, sql: sqlite3.Connection, new: Snapshot) -> None:
        """Find out which documents are there, by the keys of both."""
        pairs: Rows = np.fromiter(sql.execute(PAIRS), np.dtype((np.int64, 2))).astype(np.int64, copy=False)
        pairs = pairs[np.argsort(pairs[:, 1])]
        self._moved = dict(pairs.tolist())
        self._waiting = int(sql.execute("SELECT count(*) FROM main.documents").fetchone()[0]) - len(pairs)
        self._there = [
            Segment(each.row, _under_old_keys(each.members, pairs), each.stored, each.space) for each in new.segments
        ]
        moved = np.sort(pairs[:, 0])
        self._on_their_way = [
            (Segment(each.row, _without(each.members, moved), each.stored, each.space), self._measured(each))
            for each in (self._snapshot.segments if self._matrix is not None else ())
        ]

    def _measured(self, segment: Segment) -> Vectors | None:
        """Lengths of its rows behind the map, where vectors are compared by their directions."""
        if self._matrix is None or not self.description.space.length_one:
            return None
        return lengths_of(segment, self._matrix, self.new.folder, checksums.known(self.new.connection))

    def _aims(self, vector: Vectors, documents: Rows | None) -> list[Aim]:
        new = self.new.loaded
        dims = self.description.encoder.dim
        query = new.space.query(vector, dims)
        aims = [Aim(segment, query, segment.allowed(documents)) for segment in self._there]
        if self._matrix is None:
            return aims
        reached = self.description.unrotated.query(vector, dims) @ self._matrix
        query, offset = np.ascontiguousarray(reached[:-1]), float(reached[-1])
        return aims + [
            Aim(segment, query, segment.allowed(documents), Reached(offset, lengths, *self.moving.level))
            for segment, lengths in self._on_their_way
        ]


def _without(members: Members, moved: Rows) -> Members:
    """Rows of the old index whose documents are not among those that moved (keys, sorted)."""
    gone = np.isin(members.documents, moved)
    return Members(np.where(gone, -1, members.passages), np.where(gone, -1, members.documents))


def _under_old_keys(members: Members, pairs: Rows) -> Members:
    """Rows of the new index under the old documents' keys; dead where the old index holds no such document.

    `pairs` are keys `(documents, 2)`, old and new, in the order of the new ones.
    """
    if not len(pairs):
        nobody = np.full(len(members.documents), -1, np.int64)
        return Members(nobody, nobody)
    places = np.minimum(np.searchsorted(pairs[:, 1], members.documents), len(pairs) - 1)
    known = pairs[places, 1] == members.documents
    return Members(np.where(known, members.passages, -1), np.where(known, pairs[places, 0], -1))
