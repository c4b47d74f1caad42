"""Which documents a search may find, by their metadata."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np

from emb.data.records import whole
from emb.errors import UsageError
from emb.search.index.candidates import Rows

_ASKED = 500  # values in one statement: SQLite has an upper limit
Where = Mapping[str, str | Sequence[str]]


def require_known(where: Where, known: Sequence[str]) -> None:
    """Hold names against those that an index keeps.

    Raises:
        UsageError: a name that was not indexed.
    """
    for name in where:
        if name not in known:
            raise UsageError(
                f"--where {name}: not in this index",
                f"it has {', '.join(known) or 'no metadata'}; others are added where it is built, with --metadata",
            )


def matching(sql: sqlite3.Connection, where: Where | None, known: Sequence[str]) -> Rows | None:
    """Keys, sorted, of the documents that have one of the values under every name; None for all.

    Raises:
        UsageError: a name that was not indexed.
    """
    if not where:
        return None
    require_known(where, known)
    each = [_having(sql, name, [value] if isinstance(value, str) else value) for name, value in where.items()]
    return np.asarray(reduce(np.intersect1d, each))


def _having(sql: sqlite3.Connection, name: str, values: Sequence[str]) -> Rows:
    """Keys, sorted, of the documents that have one of the `values`, however many these are."""
    different, found = list(dict.fromkeys(map(whole, values))), []
    for start in range(0, len(different), _ASKED):
        part = different[start : start + _ASKED]
        text = f"SELECT document FROM metadata WHERE name = ? AND value IN ({', '.join('?' * len(part))})"
        found += [document for (document,) in sql.execute(text, [name, *part])]
    return np.unique(np.asarray(found, np.int64))
