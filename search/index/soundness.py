"""Damage to an index's SQLite file, which has no checksums of its own: by what it keeps twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from emb.search.index.documents import content_of

_PAGES = "PRAGMA integrity_check(5)"
_DOCUMENTS = "SELECT key, id, title, text, content, facts FROM documents"
_FACTS = "SELECT name, value FROM metadata WHERE document = ?"
_OUTSIDE = """
SELECT passages.key, documents.id FROM passages LEFT JOIN documents ON document = documents.key
LEFT JOIN segments ON segment = segments.id
WHERE documents.key IS NULL OR segments.id IS NULL OR row < 0 OR row >= rows OR start < 0 OR stop < start
    OR stop > length(text)"""


def damage_of(sql: sqlite3.Connection) -> Iterator[str]:
    """What is found damaged, in words; the pages alone where these are.

    Raises:
        sqlite3.Error, UnicodeDecodeError: so much that SQLite reads none of it.
    """
    pages = [str(said).splitlines()[-1] for (said,) in sql.execute(_PAGES) if said != "ok"]
    yield from pages or (*_documents(sql), *_passages(sql))


def _documents(sql: sqlite3.Connection) -> Iterator[str]:
    """Documents that are not what was encoded, by the hash that an update compares, or whose metadata disagree."""
    for key, name, title, text, content, facts in sql.execute(_DOCUMENTS):
        if content_of(title, text) != content or not _says(facts, dict(sql.execute(_FACTS, (key,)))):
            yield f"the document {name!r} has changed"


def _says(facts: str, kept: dict[str, str]) -> bool:
    try:
        return bool(json.loads(facts) == kept)
    except ValueError:
        return False


def _passages(sql: sqlite3.Connection) -> Iterator[str]:
    for key, name in sql.execute(_OUTSIDE):
        yield f"the passage {key} of {name!r} stands where there is none"
