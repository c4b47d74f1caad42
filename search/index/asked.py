"""Pseudo-queries of an index's documents: what its cut, and the map of a migration, are learned from."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

import numpy as np

from emb.data.documents import Document
from emb.data.pseudo_queries import ALL, Cuts, pseudo_queries
from emb.progress import note
from emb.runtime.encoder import Encoder
from emb.similarity import Vectors

_MOST = 30_000  # queries; a third of them teaches nearly as much (docs/log.md)
_LEAST = 300
_DOCUMENTS = 20_000  # that they are cut from
_CUTS = Cuts(sentences=ALL)  # as distilling cuts a small collection, whose vectors may be in the cache


def asked_of(sql: sqlite3.Connection, encoder: Encoder) -> Vectors | None:
    """Vectors `(queries, encoder's dim)` of queries cut from documents all over the index; None, with a note, of too
    few.
    """
    chosen = cut_from(sql, "the cut, now and later,")
    if chosen is None:
        return None
    return np.asarray(encoder.encode(chosen, kind="query", show_progress_bar=True), np.float32)


def cut_from(sql: sqlite3.Connection, what: str, without: Collection[str] = ()) -> list[str] | None:
    """The queries themselves, but for those of the texts `without`; a note names `what` is not learned of too few."""
    left_out = {text.casefold() for text in without}
    cut = [each.text for each in pseudo_queries(_documents(sql), _CUTS) if each.text.casefold() not in left_out]
    if len(cut) < _LEAST:
        besides = f" besides the {len(left_out):,} that maps are tried on" if left_out else ""
        note(f"{what} is not learned: the documents give {len(cut):,} pseudo-queries{besides}, it takes {_LEAST}")
        return None
    return [cut[place] for place in np.linspace(0, len(cut) - 1, min(_MOST, len(cut))).astype(int)]


def _documents(sql: sqlite3.Connection) -> list[Document]:
    """Evenly spread over the ids: whatever order they came in."""
    keys = [key for (key,) in sql.execute("SELECT key FROM documents ORDER BY id")]
    chosen = keys[:: max(1, -(-len(keys) // _DOCUMENTS))]
    found = (sql.execute("SELECT title, text FROM documents WHERE key = ?", (key,)).fetchone() for key in chosen)
    return [Document(*each) for each in found]
