"""An index that was copied into an engine, searched there: the same questions and answers as of the one on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from emb.errors import EngineError, UsageError
from emb.progress import warn
from emb.runtime.encoder import Encoder
from emb.search.engines.identity import IDENTITY, STATE, read_identity
from emb.search.engines.opening import connect
from emb.search.engines.protocol import Conditions, Found
from emb.search.engines.target import Target
from emb.search.index.filters import Where, conditions_of
from emb.search.index.hits import Hit
from emb.search.index.matching import fitting_encoder
from emb.search.index.queries import query_vector
from emb.search.index.ranking import DEPTH
from emb.similarity import Vectors

_MORE = 32  # rows beyond k: ties, and further passages of one document
_ROUNDING = 1e-3  # of scores that an engine puts rows in order by: queries are halves in PostgreSQL


class EngineIndex:
    """A table or collection of `emb sync`, with an encoder of queries or without.

    It may be used from several threads, which wait for one another.
    """

    def __init__(self, target: Target, query: str | Path | Encoder | None = None, *, any_encoder: bool = False) -> None:
        """Raises:
        EngineError: an engine that cannot be reached, or holds no index there.
        ArtifactError: a query encoder that does not fit to it.
        """
        self.target, self._lock = target, threading.Lock()
        self._engine = connect(target)
        try:
            self.identity = read_identity(self._setting(IDENTITY), target)
            self.description = self.identity.description
            if self._setting(STATE) != self.identity.state(whole=True):
                warn(f"{target}: the last `emb sync` did not come to its end; run it again")
            self.encoder: Encoder | None = None
            if query is not None:
                self.encoder = fitting_encoder(
                    query, self.description.encoder, self.description.layout, any_encoder=any_encoder
                )
        except BaseException:
            self.close()
            raise

    def search(self, text: str, k: int = 10, *, where: Where | None = None, depth: int = DEPTH) -> list[Hit]:
        """The `k` documents nearest to a text, the best first; see `Index.search`.

        Args:
            text: what is searched for.
            k: documents.
            where: values of metadata, one or several under a name, that documents must have.
            depth: candidates that whole vectors put in order, where bits find them.

        Raises:
            UsageError: an empty text, one that the encoder knows nothing of, or no query encoder.
            EngineError: the engine does not answer, or holds other vectors by now.
        """
        if self.encoder is None:
            raise UsageError("this index was opened without a query encoder", "name one with --query")
        return self.search_vector(query_vector(self.encoder, text), k, where=where, depth=depth)

    def search_vector(
        self, vector: Vectors, k: int = 10, *, where: Where | None = None, depth: int = DEPTH
    ) -> list[Hit]:
        """The same for a vector `(dim,)` of the query encoder, or of the documents' own.

        Raises:
            UsageError: `k` below 1, a vector of another dim, or metadata that is not there.
            EngineError: the engine does not answer, or holds other vectors by now.
        """
        if k < 1:
            raise UsageError(f"k {k}: not a number of documents", "choose 1 or more")
        conditions = conditions_of(where or {}, self.description.layout.metadata)
        query = self.identity.space.query(vector, self.description.encoder.dim)
        with self._lock:
            self._require_unchanged()
            best = self._best(query, k, conditions, depth) if all(conditions.values()) else []
        return [_hit(rank, found) for rank, found in enumerate(best, 1)]

    def close(self) -> None:
        """Close the connection."""
        self._engine.close()

    def __enter__(self) -> EngineIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _best(self, query: Vectors, k: int, conditions: Conditions, depth: int) -> list[Found]:
        """Documents by their best rows; more rows are asked for until no other can be as good as the last."""
        wanted, seen = k + _MORE, -1
        while True:
            rows = self._engine.nearest(query, wanted, conditions, self.identity.form, depth)
            best = _by_document(rows)
            if len(rows) < wanted or len(rows) == seen or _settled(best, k, min(row.score for row in rows)):
                return best[:k]
            wanted, seen = wanted * 4, len(rows)

    def _setting(self, name: str) -> str:
        text = self._engine.setting(name)
        if text is None:
            raise EngineError(f"{self.target}: no index here", f"copy one: emb sync INDEX {self.target}")
        return text

    def _require_unchanged(self) -> None:
        """Vectors of another space may have come in the place of these while this was open."""
        if self._setting(STATE).split(" ")[0] != self.identity.fingerprint:
            raise EngineError(
                f"{self.target}: was written anew, with vectors of another space, since it was opened", "open it again"
            )


def _by_document(rows: Sequence[Found]) -> list[Found]:
    """The best row of each document; equal ones by their ids, as an index on disk has them."""
    best: dict[str, Found] = {}
    for row in sorted(rows, key=lambda row: (-row.score, row.id, row.start)):
        best.setdefault(row.id, row)
    return list(best.values())


def _settled(best: Sequence[Found], k: int, least: float) -> bool:
    return len(best) >= k and best[k - 1].score > least + _ROUNDING * max(1.0, abs(least))


def _hit(rank: int, found: Found) -> Hit:
    return Hit(rank, found.score, found.id, found.title, found.passage, found.start, found.stop, found.metadata)
