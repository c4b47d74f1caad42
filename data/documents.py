"""The documents that will be searched: every record of the files given, with its title where it has one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emb.data.corpus import data_files
from emb.data.records import read_records, text_of
from emb.errors import DataError
from emb.progress import note, warn

TITLE = "title"
_QUERIES = "queries"  # the name of the other file of an evaluation set


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it is searched: its title, which may be empty, and its text."""

    title: str
    text: str

    @property
    def whole(self) -> str:
        """What is encoded: title and text, as evaluation sets of BEIR's layout have them joined."""
        return f"{self.title} {self.text}".strip()


def read_documents(sources: Sequence[str], field: str = "text") -> list[Document]:
    """The different documents of files and folders, in order; of a BEIR folder its corpus alone, never its queries or
    judgements.

    Raises:
        DataError: a source is missing or unreadable, a record lacks the field, or nothing is left.
    """
    seen: dict[bytes, Document] = {}
    total = 0
    for path in (path for source in sources for path in document_files(source)):
        for found in _documents(path, field):
            total += 1
            seen.setdefault(hashlib.blake2b(found.whole.encode(), digest_size=16).digest(), found)
    if not seen:
        raise DataError(f"{', '.join(sources)}: no document with a text", "check the path that was given for documents")
    if total > len(seen):
        note(f"{total - len(seen):,} duplicate documents dropped")
    return list(seen.values())


def document_files(source: str) -> list[Path]:
    """The files of a source that hold documents: of a BEIR folder its corpus alone.

    Raises:
        DataError: no such file or folder, or none in it that can be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        corpora = [file for name in ("corpus.jsonl", "corpus.jsonl.gz") if (file := path / name).is_file()]
        known = any((path / name).exists() for name in ("qrels", "queries.jsonl", "queries.jsonl.gz"))
        return corpora[:1] if known and corpora else data_files(path)
    if not path.is_file():
        raise DataError(f"{source}: no such file or folder", "check the path that was given for documents")
    if path.name.startswith(_QUERIES) and (path.parent / "qrels").is_dir():
        warn(f"{path}: the queries of an evaluation set; a student trained on them can no longer be judged by them")
    return [path]


def _documents(path: Path, field: str) -> Iterator[Document]:
    for where, record in read_records(path, field, (field, TITLE)):
        title = "" if record.get(TITLE) is None else record[TITLE]
        if not isinstance(title, str):
            raise DataError(f"{where}: {TITLE} is no string", f"write titles as text, or rename the field {TITLE!r}")
        found = Document(" ".join(title.split()), text_of(record, field, where).strip())
        if found.whole:
            yield found
