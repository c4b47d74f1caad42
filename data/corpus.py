"""Reading a corpus: any mix of files, folders and hub data sets becomes one deduplicated list."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from emb.data.parallel import TEXT, TRANSLATION, read_pairs
from emb.data.records import SUFFIXES, Record, read_records, suffix, text_of
from emb.errors import DataError, first_line
from emb.progress import note

KINDS = ("document", "query")
MIN_TEXTS = 16
# What comes with data and is prose about it: README.md, LICENSE-MIT.txt. A README.jsonl would be data.
_ABOUT = re.compile(
    r"(readme|licen[sc]e|copying|notice|changelog|citation|contributing|authors)([._ -].*)?\.(md|txt)(\.gz)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Text:
    """One training text and whether it plays a query or a document.

    `source_text`, of a translation, is the text that it translates. The teacher reads that in its place, so both have
    one vector to learn (Reimers and Gurevych 2020, arXiv 2004.09813).
    """

    text: str
    kind: str = "document"
    source_text: str | None = None

    @property
    def teacher_text(self) -> str:
        """What the teacher reads."""
        return self.text if self.source_text is None else self.source_text


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
        """Hash of every kind and text, and of what a translation translates, in order."""
        state = hashlib.blake2b(digest_size=16)
        for item in self.texts:
            plain = f"{item.kind}\0{item.text}\0"
            # No kind is called translation, so no two corpora give the same bytes.
            state.update((plain if item.source_text is None else f"translation\0{plain}{item.source_text}\0").encode())
        return state.hexdigest()


def read_corpus(
    sources: Sequence[str], columns: Columns = Columns(), limit: int | None = None, parallel: Sequence[str] = ()
) -> Corpus:
    """Read every source, drop records without a text and duplicates, and keep the first `limit`; say how many.

    A source is a file (txt: a text per line; md: a text per paragraph; jsonl, csv, tsv, Parquet: a record each;
    `.gz` of any), a folder of such files (without README, LICENSE and the like), or a `datasets` hub id, and may be
    prefixed with its kind: `query=questions.txt`. Null is no text. Files of `parallel` text (`read_pairs`) come first
    and give two texts a pair, unless one of them is blank.

    A text is read by the teacher in one way only, the first: with two targets a student would learn their mean, and
    could be trained on one while it is tried on the other. So of a translation of two texts the second is dropped, and
    a translation is dropped from `sources`, where the teacher would read it as it is.

    Raises:
        DataError: a source is missing, unreadable, lacks the field, a text is no string, or too few remain.
    """
    seen: dict[bytes, Text] = {}
    read_as: dict[str, str] = {}
    total = absent = 0
    for item in _stripped(sources, columns, parallel):
        if item is None:
            absent += 1
            continue
        total += 1
        if not parallel or read_as.setdefault(item.text, item.teacher_text) == item.teacher_text:
            seen.setdefault(_key(item.kind, item.text), item)
        if limit is not None and len(seen) >= limit:
            break
    if absent:
        note(f"{absent:,} records without a text{' or its translation' if parallel else ''} left out")
    return checked(Corpus(list(seen.values())), total, [*parallel, *sources])


def _stripped(sources: Sequence[str], columns: Columns, parallel: Sequence[str]) -> Iterator[Text | None]:
    """Every text without the space around it; None in place of a record that has none, or lacks one of two."""
    pairs = (pair for each in parallel for pair in _read_parallel(each, columns))
    alone = ((item,) for source in sources for item in read_source(source, columns))
    for record in chain[tuple[Text, ...]](pairs, alone):
        found = [Text(each.text.strip(), each.kind, each.source_text and each.source_text.strip()) for each in record]
        yield from found if all(each.text for each in found) else [None]


def checked(corpus: Corpus, total: int, sources: Sequence[str]) -> Corpus:
    """Refuse a corpus too small to train on; say how many duplicates were dropped."""
    if len(corpus) < MIN_TEXTS:
        found = f"{', '.join(sources)}: {len(corpus)} different texts, at least {MIN_TEXTS} are needed"
        raise DataError(found, "give more --data; a few thousand texts make a first useful student")
    if total > len(corpus):
        note(f"{total - len(corpus):,} duplicate texts dropped")
    return corpus


def _key(kind: str, text: str) -> bytes:
    return hashlib.blake2b(f"{kind}\0{text}".encode(), digest_size=16).digest()


def read_source(source: str, columns: Columns) -> Iterator[Text]:
    """Every text of one source, as it stands there; blank ones are among them where the format has records."""
    source, columns = _without_prefix(source, columns)
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _read_folder(path, columns)
    elif path.is_file():
        yield from _read_file(path, columns)
    elif path.suffix or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise DataError(f"{source}: no such file or folder", "check the path given to --data")
    else:
        yield from _read_hub(source, columns)


def _read_parallel(source: str, columns: Columns) -> Iterator[tuple[Text, Text]]:
    """Every text of one file of pairs, and behind it its translation, as they stand there."""
    source, columns = _without_prefix(source, Columns(TEXT, columns.kind, columns.default_kind))
    path = Path(source).expanduser()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{source}: {found}", "check the path given to --parallel; repeat it for several files")
    for where, record in read_pairs(path):
        original = _from_record(record, where, columns)
        yield original, Text(text_of(record, TRANSLATION, where), original.kind, original.text)


def _without_prefix(source: str, columns: Columns) -> tuple[str, Columns]:
    """A path, and where kinds come from: of `query=PATH` all are queries."""
    kind, _, rest = source.partition("=")
    return (rest, Columns(columns.text, "", kind)) if kind in KINDS and rest else (source, columns)


def _read_folder(folder: Path, columns: Columns) -> Iterator[Text]:
    for path in data_files(folder):
        yield from _read_file(path, columns)


def data_files(folder: Path) -> list[Path]:
    """The files below a folder that hold records, without README, LICENSE and the like; what is left out is said.

    Raises:
        DataError: there is none.
    """
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in found if _is_data(path.relative_to(folder))]
    left_out = [str(path) for path in (path.relative_to(folder) for path in found) if not _is_data(path)]
    if not files:
        raise DataError(f"{folder}: holds no file to read", f"known: {' '.join(SUFFIXES)}, each also as .gz")
    if left_out:
        more = f" and {len(left_out) - 5:,} more" if len(left_out) > 5 else ""
        note(f"{folder}: not read as texts: {', '.join(left_out[:5])}{more}")
    return files


def _is_data(path: Path) -> bool:
    """Whether a file of a folder, `path` from there, can be read and is neither hidden nor about the data."""
    hidden = any(part.startswith(".") for part in path.parts)
    return suffix(path) in SUFFIXES and not hidden and _ABOUT.fullmatch(path.name) is None


def _read_file(path: Path, columns: Columns) -> Iterator[Text]:
    lines = suffix(path) == ".txt"  # a blank line there stands between texts and is no record
    for where, record in read_records(path, columns.text, (columns.text, columns.kind)):
        if not lines or record[columns.text].strip():
            yield _from_record(record, where, columns)


def _read_hub(name: str, columns: Columns) -> Iterator[Text]:
    from datasets import load_dataset

    try:
        rows: Iterable[Any] = load_dataset(name, split="train", streaming=True)
        for number, record in enumerate(rows, 1):
            yield _from_record(record, f"{name}, row {number}", columns)
    except (OSError, ValueError, RuntimeError) as error:
        hint = "check the path given to --data, or the network for a hub id"
        raise DataError(
            f"{name}: neither a file nor a data set that can be reached ({first_line(error)})", hint
        ) from error


def _from_record(record: Record, where: str, columns: Columns) -> Text:
    value, kind = text_of(record, columns.text, where), record.get(columns.kind) if columns.kind else None
    kind = columns.default_kind if kind in (None, "") else kind
    if kind not in KINDS:
        raise DataError(
            f"{where}: kind {kind!r}",
            f"{columns.kind} must be one of {', '.join(KINDS)}; name another field with --kind-field",
        )
    return Text(value, sys.intern(kind))


def split(corpus: Corpus, holdout: int) -> tuple[Corpus, Corpus]:
    """A training part and a held-out part of at most a tenth, chosen by the hashes of what the teacher reads.

    So a translation stays with the text it translates. The choice does not depend on order or on the other texts, so
    adding data never moves a held-out text into the training part unless the held-out part is full.
    """
    size = max(2, min(holdout, len(corpus) // 10))
    ranks = [_key("holdout", item.teacher_text) for item in corpus.texts]
    last = sorted(ranks)[size - 1]  # a text that is query and document at once is held out as both
    parts = (
        [item for item, rank in zip(corpus.texts, ranks, strict=True) if (rank <= last) is held]
        for held in (False, True)
    )
    train, test = (Corpus(part) for part in parts)
    return train, test
