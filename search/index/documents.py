"""Documents as an index takes them: each with an id, a title, a text and metadata, one at a time from their files."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emb.data.documents import TITLE, document_files
from emb.data.records import Record, read_lines, read_records, suffix, text_of, whole
from emb.errors import DataError
from emb.progress import note

IDS = ("_id", "id")  # columns that hold ids where none is named: that of BEIR, and the usual one


@dataclass(frozen=True)
class Entry:
    """One document and where it stands.

    Attributes:
        where: file and line, or row.
        id: as its column has it, or a hash of title and text.
        named: whether the id stood in a column.
        facts: metadata by name, each as text.
    """

    where: str
    id: str
    named: bool
    title: str
    text: str
    facts: dict[str, str]

    @cached_property
    def content(self) -> bytes:
        """A hash of what is encoded."""
        return content_of(self.title, self.text)

    @cached_property
    def facts_json(self) -> str:
        """Metadata as the index keeps it."""
        return json.dumps(self.facts, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True)
class Columns:
    """Which column holds what; an id column of None is looked for, and one that is not there makes ids of hashes."""

    text: str = "text"
    title: str = TITLE
    id: str | None = None
    metadata: Sequence[str] = ()


def content_of(title: str, text: str) -> bytes:
    """A hash of a document's title and text, 16 bytes."""
    return hashlib.blake2b(f"{title}\0{text}".encode(), digest_size=16).digest()


def read_entries(
    sources: Sequence[str], columns: Columns, empty: Callable[[str], object] = lambda where: None
) -> Iterator[Entry]:
    """Every document of files and folders that has a title or a text; `empty` is told where one with an id has neither.

    Raises:
        DataError: a source that is missing or cannot be read, a record without a column that was named, or with no
            usable id.
    """
    ids = (columns.id,) if columns.id else IDS
    wanted = (columns.text, columns.title, *ids, *columns.metadata)
    for path in (path for source in sources for path in document_files(source)):
        for where, record in read_records(path, columns.text, wanted):
            title, text = _title(record, columns.title, where), text_of(record, columns.text, where).strip()
            if title or text:
                found = _id(record, columns.id, where)
                facts = {name: _fact(record, name, where) for name in columns.metadata}
                named = found is not None
                yield Entry(where, found or content_of(title, text).hex(), named, title, text, facts)
            elif any(record.get(name) is not None for name in ids):
                empty(where)


def read_ids(path: Path) -> list[str]:
    """Ids, one a line; in a .jsonl (also .gz) each line is a JSON string or a whole number.

    Raises:
        DataError: a file that cannot be read, or a line of a .jsonl that is neither.
    """
    as_json = suffix(path) == ".jsonl"
    return [_id_of(line, where) if as_json else line.strip() for where, line in read_lines(path)]


def _id_of(line: str, where: str) -> str:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise DataError(
            f'{where}: no id as JSON, such as "a" or 7', "write one a line, or name a file of plain lines .txt"
        )
    return whole(str(found).strip())


def survey(entries: Iterable[Entry]) -> int:
    """Read every document once before anything is encoded; return how many different ones there are.

    Raises:
        DataError: an id stands twice, or there is no document.
    """
    count = twice = 0
    with closing(sqlite3.connect("")) as seen:  # a file of its own that goes with it: ids need not fit into memory
        seen.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, place TEXT) WITHOUT ROWID")
        for entry in entries:
            try:
                seen.execute("INSERT INTO seen VALUES (?, ?)", (entry.id, entry.where))
                count += 1
            except sqlite3.IntegrityError:
                [first] = seen.execute("SELECT place FROM seen WHERE id = ?", (entry.id,)).fetchone()
                if entry.named:
                    raise DataError(
                        f"the id {entry.id!r} stands twice: {first} and {entry.where}",
                        "give each document an id of its own, or name another column with --id",
                    ) from None
                twice += 1
    if not count:
        raise DataError("no document with a text", "check the files, and the column named with --field")
    if twice:
        note(f"{twice:,} duplicate documents dropped")
    return count


def _title(record: Record, name: str, where: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {name!r} is no text", "write titles as text, or name another column with --title")
    return " ".join(whole(value).replace("\0", "").split())


def _id(record: Record, column: str | None, where: str) -> str | None:
    name = column or next((each for each in IDS if each in record), None)
    if name is None:
        return None
    value: Any = record.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(
            f"{where}: no id in {name!r}", "give every document a text or a whole number, or name a column with --id"
        )
    return whole(str(value).strip())


def _fact(record: Record, name: str, where: str) -> str:
    if name not in record:
        raise DataError(
            f"{where}: no field {name!r}", f"--metadata names columns; found: {', '.join(map(str, record))}"
        )
    return as_kept(record[name])


def as_kept(value: Any) -> str:
    """A value of metadata as the index keeps it, and compares it: text as it is, what JSON has as JSON writes it, and
    anything else, such as a date, as Python does.
    """
    if isinstance(value, str):
        return whole(value)
    known = value is None or isinstance(value, bool | int | float | list | dict)
    return json.dumps(value, ensure_ascii=False, default=str) if known else str(value)
