"""Documents of a block told apart: those that are new or changed are encoded, the rest is left or its metadata set."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from emb.search.index.chunks import Span
from emb.search.index.documents import Entry


@dataclass
class Counts:
    """What became of the documents that were read."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0


@dataclass
class Block:
    """A block of documents against what the index holds: `old` are keys of documents that are to be replaced."""

    encode: list[Entry] = field(default_factory=list)
    old: dict[str, int] = field(default_factory=dict)
    facts: list[tuple[int, Entry]] = field(default_factory=list)
    unchanged: int = 0


def compared(sql: sqlite3.Connection, entries: Sequence[Entry]) -> Block:
    """What is to be done with each; of an id that stands twice the last is taken, as it is of two blocks."""
    different = {entry.id: entry for entry in entries}
    found = sql.execute(
        f"SELECT id, key, content, facts FROM documents WHERE id IN ({','.join('?' * len(different))})",
        list(different),
    )
    known = {name: (key, content, facts) for name, key, content, facts in found}
    block = Block()
    for name, entry in different.items():
        key, content, facts = known.get(name, (None, None, None))
        if content != entry.content:
            block.encode.append(entry)
            block.old |= {} if key is None else {name: key}
        elif facts != entry.facts_json:
            block.facts.append((int(key or 0), entry))
        else:
            block.unchanged += 1
    return block


def put(
    sql: sqlite3.Connection, block: Block, spans: Sequence[Sequence[Span]], segment: int, behind: int, counts: Counts
) -> None:
    """Make a block's documents count: their vectors stand in `segment`, from the row `behind` on."""
    remove_passages(sql, list(block.old.values()))
    row = behind
    for entry, pieces in zip(block.encode, spans, strict=True):
        key = _document(sql, entry, block.old.get(entry.id))
        _set_facts(sql, key, entry)
        sql.executemany(
            "INSERT INTO passages (document, start, stop, segment, row) VALUES (?, ?, ?, ?, ?)",
            [(key, start, stop, segment, row + number) for number, (start, stop) in enumerate(pieces)],
        )
        row += len(pieces)
    for key, entry in block.facts:
        sql.execute("UPDATE documents SET facts = ? WHERE key = ?", (entry.facts_json, key))
        _set_facts(sql, key, entry)
    sql.execute("UPDATE segments SET rows = ? WHERE id = ?", (row, segment))
    counts.updated += len(block.old) + len(block.facts)
    counts.added += len(block.encode) - len(block.old)
    counts.unchanged += block.unchanged


def remove(sql: sqlite3.Connection, ids: Sequence[str]) -> int:
    """Remove documents; return how many of the ids were there."""
    keys = [
        key for name in dict.fromkeys(ids) for (key,) in sql.execute("SELECT key FROM documents WHERE id = ?", (name,))
    ]
    remove_passages(sql, keys)
    for key in keys:
        sql.execute("DELETE FROM metadata WHERE document = ?", (key,))
        sql.execute("DELETE FROM documents WHERE key = ?", (key,))
    return len(keys)


def remove_passages(sql: sqlite3.Connection, documents: Sequence[int]) -> None:
    """Take the rows of documents out of their segments; the files stay as they are."""
    for key in documents:
        sql.execute(
            "UPDATE segments SET version = version + 1 WHERE id IN (SELECT segment FROM passages WHERE document = ?)",
            (key,),
        )
        sql.execute("DELETE FROM passages WHERE document = ?", (key,))


def _document(sql: sqlite3.Connection, entry: Entry, key: int | None) -> int:
    values = (entry.title, entry.text, entry.content, entry.facts_json)
    if key is not None:
        sql.execute("UPDATE documents SET title = ?, text = ?, content = ?, facts = ? WHERE key = ?", (*values, key))
        return key
    found = sql.execute(
        "INSERT INTO documents (id, title, text, content, facts) VALUES (?, ?, ?, ?, ?)", (entry.id, *values)
    )
    return int(found.lastrowid or 0)


def _set_facts(sql: sqlite3.Connection, key: int, entry: Entry) -> None:
    sql.execute("DELETE FROM metadata WHERE document = ?", (key,))
    sql.executemany("INSERT INTO metadata VALUES (?, ?, ?)", [(key, *fact) for fact in entry.facts.items()])
