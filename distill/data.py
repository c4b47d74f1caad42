"""Reading a corpus: any mix of files, folders and hub data sets becomes one deduplicated list."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emb.errors import DataError
from emb.progress import note
from emb.records import SUFFIXES, Record, read_records, suffix, text_of

KINDS = ("document", "query")
MIN_TEXTS = 16


@dataclass(frozen=True, slots=True)
class Text:
    """One training text and whether it plays a query or a document."""

    text: str
    kind: str = "document"


@dataclass(frozen=True)
class Columns:
    """Which fields of a record hold the text and its kind; `kind` applies where no field does."""

    text: str = "text"
    kind: str = "kind"
    default_kind: str = "document"


@dataclass(frozen=True)
class Corpus:
    """Unique texts in a fixed order."""

    texts: list[Text]

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """Hash of every kind and text, in order."""
        state = hashlib.blake2b(digest_size=16)
        for item in self.texts:
            state.update(f"{item.kind}\0{item.text}\0".encode())
        return state.hexdigest()


def read_corpus(sources: Sequence[str], columns: Columns = Columns(), limit: int | None = None) -> Corpus:
    """Read every source, drop empty texts and duplicates, and keep the first `limit`.

    A source is a file (txt: a text per line; md: a text per paragraph; jsonl, csv, tsv, Parquet:
    a record each; `.gz` of any), a folder of such files, or a `datasets` hub id, and may be
    prefixed with its kind: `query=questions.txt`.

    Raises:
        DataError: a source is missing, unreadable, lacks the field, or too few texts remain.
    """
    seen: dict[bytes, Text] = {}
    total = 0
    for item in (item for source in sources for item in _read_source(source, columns)):
        text = _whole(item.text.strip())
        if not text:
            continue
        total += 1
        seen.setdefault(_key(item.kind, text), Text(text, item.kind))
        if limit is not None and len(seen) >= limit:
            break
    return checked(Corpus(list(seen.values())), total, sources)


def checked(corpus: Corpus, total: int, sources: Sequence[str]) -> Corpus:
    """Refuse a corpus too small to train on; say how many duplicates were dropped."""
    if len(corpus) < MIN_TEXTS:
        found = f"{', '.join(sources)}: {len(corpus)} different texts, at least {MIN_TEXTS} are needed"
        raise DataError(found, "give more --data; a few thousand texts make a first useful student")
    if total > len(corpus):
        note(f"{total - len(corpus):,} duplicate texts dropped")
    return corpus


def _whole(text: str) -> str:
    # JSON can spell half of a surrogate pair, which no tokenizer takes.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _key(kind: str, text: str) -> bytes:
    return hashlib.blake2b(f"{kind}\0{text}".encode(), digest_size=16).digest()


def _read_source(source: str, columns: Columns) -> Iterator[Text]:
    kind, _, rest = source.partition("=")
    if kind in KINDS and rest:
        source, columns = rest, Columns(columns.text, "", kind)
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _read_folder(path, columns)
    elif path.is_file():
        yield from _read_file(path, columns)
    elif path.suffix or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise DataError(f"{source}: no such file or folder", "check the path given to --data")
    else:
        yield from _read_hub(source, columns)


def _read_folder(folder: Path, columns: Columns) -> Iterator[Text]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and suffix(path) in SUFFIXES]
    if not files:
        raise DataError(f"{folder}: holds no file to read", f"known: {' '.join(SUFFIXES)}, each also as .gz")
    for path in files:
        yield from _read_file(path, columns)


def _read_file(path: Path, columns: Columns) -> Iterator[Text]:
    for where, record in read_records(path, columns.text, (columns.text, columns.kind)):
        yield _from_record(record, where, columns)


def _read_hub(name: str, columns: Columns) -> Iterator[Text]:
    from datasets import load_dataset

    try:
        rows: Iterable[Any] = load_dataset(name, split="train", streaming=True)
        for record in rows:
            yield _from_record(record, name, columns)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise DataError(f"{name}: neither a file nor a data set that can be reached ({reason})", "check the path given to --data, or the network for a hub id") from error


def _from_record(record: Record, where: str, columns: Columns) -> Text:
    value, kind = text_of(record, columns.text, where), record.get(columns.kind) or columns.default_kind
    if kind not in KINDS:
        raise DataError(f"{where}: kind {kind!r}", f"{columns.kind} must be one of {', '.join(KINDS)}; name another field with --kind-field")
    return Text(value, sys.intern(kind))


def split(corpus: Corpus, holdout: int) -> tuple[Corpus, Corpus]:
    """A training part and a held-out part of at most a tenth, chosen by the texts' own hashes.

    The choice does not depend on order or on the other texts, so adding data never moves a
    held-out text into the training part unless the held-out part is full.
    """
    size = max(2, min(holdout, len(corpus) // 10))
    ranks = [_key("holdout", item.text) for item in corpus.texts]
    last = sorted(ranks)[size - 1]  # a text that is query and document at once is held out as both
    parts = ([item for item, rank in zip(corpus.texts, ranks, strict=True) if (rank <= last) is held] for held in (False, True))
    train, test = (Corpus(part) for part in parts)
    return train, test
