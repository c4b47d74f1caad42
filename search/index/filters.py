"""Which documents a search may find, by their metadata."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from emb.errors import UsageError
from emb.search.index.candidates import Rows
from emb.search.index.documents import as_kept

_ASKED = 500  # values in one statement
Where = Mapping[str, Any]  # a value under each name, or several


def conditions_of(where: Where, known: Sequence[str]) -> dict[str, list[str]]:
    """The values under each name, as the index keeps them: numbers, booleans and None as JSON writes them.

    Raises:
        UsageError: a name that was not indexed.
    """
    for name in where:
        if name not in known:
            raise UsageError(
                f"--where {name}: not in this index",
                f"it has {', '.join(known) or 'no metadata'}; others are added where it is built, with --metadata",
            )
    return {name: list(dict.fromkeys(map(as_kept, _each(value)))) for name, value in where.items()}


def _each(value: Any) -> Collection[Any]:
    return value if isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping) else [value]


def matching(sql: sqlite3.Connection, where: Where | None, known: Sequence[str]) -> Rows | None:
    """Keys, sorted, of the documents that have one of the values under every name; None for all.

    Raises:
        UsageError: a name that was not indexed.
    """
    if not where:
        return None
    found = [_having(sql, name, each) for name, each in conditions_of(where, known).items()]
    return reduce(np.intersect1d, found)


def _having(sql: sqlite3.Connection, name: str, values: Sequence[str]) -> Rows:
    """Keys, sorted, of the documents with one of the values; SQLite takes so many at a time."""
    keys: list[int] = []
    for start in range(0, len(values), _ASKED):
        part = values[start : start + _ASKED]
        asked = f"SELECT document FROM metadata WHERE name = ? AND value IN ({', '.join('?' * len(part))})"
        keys += [document for (document,) in sql.execute(asked, [name, *part])]
    return np.unique(np.asarray(keys, np.int64))
