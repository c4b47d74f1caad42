"""Which documents a search may find, by their metadata."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import numpy as np

from emb.errors import UsageError
from emb.search.index.candidates import Rows

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
    selects, values = [], []
    for name, value in where.items():
        each = [value] if isinstance(value, str) else list(value)
        selects.append(f"SELECT document FROM metadata WHERE name = ? AND value IN ({', '.join('?' * len(each))})")
        values += [name, *each]
    found = sql.execute(" INTERSECT ".join(selects) + " ORDER BY document", values)
    return np.fromiter((document for (document,) in found), np.int64)
