"""Reading a corpus: any mix of files, folders and hub data sets becomes one deduplicated list."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from emb.errors import DataError
from emb.progress import note

KINDS = ("document", "query")
MIN_TEXTS = 16
_SUFFIXES = (".txt", ".md", ".jsonl", ".csv", ".tsv", ".parquet")


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
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _suffix(path) in _SUFFIXES]
    if not files:
        raise DataError(f"{folder}: holds no file to read", f"known: {' '.join(_SUFFIXES)}, each also as .gz")
    for path in files:
        yield from _read_file(path, columns)


def _read_file(path: Path, columns: Columns) -> Iterator[Text]:
    readers = {".txt": _lines, ".md": _paragraphs, ".jsonl": _jsonl, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    reader = readers.get(_suffix(path))
    if reader is None:
        raise DataError(f"{path}: unknown kind of file", f"known: {' '.join(_SUFFIXES)}, each also as .gz")
    try:
        with _open(path) as handle:
            yield from reader(handle, path, columns)
    except UnicodeDecodeError as error:
        hint = f"convert it: iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}"
        raise DataError(f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x}: {error.reason})", hint) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error})", "copy or download it again") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})", "check the file and its permissions") from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _decoded(handle: IO[bytes]) -> io.TextIOWrapper:
    return io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")


def _lines(handle: IO[bytes], path: Path, columns: Columns) -> Iterator[Text]:
    for line in _decoded(handle):
        yield Text(line, columns.default_kind)


def _paragraphs(handle: IO[bytes], path: Path, columns: Columns) -> Iterator[Text]:
    paragraph: list[str] = []
    for line in [*_decoded(handle), "\n"]:
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            yield Text(" ".join(paragraph), columns.default_kind)
            paragraph = []


def _jsonl(handle: IO[bytes], path: Path, columns: Columns) -> Iterator[Text]:
    for number, line in enumerate(_decoded(handle), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})", "each line must be one JSON object") from error
        yield _from_record(record, f"{path}:{number}", columns)


def _csv(handle: IO[bytes], path: Path, columns: Columns) -> Iterator[Text]:
    csv.field_size_limit(sys.maxsize)
    # Tab-separated text has no quoting: a lone " there is a character, not the start of ten lines.
    tabs: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if _suffix(path) == ".tsv" else {}
    reader = csv.DictReader(_decoded(handle), **tabs)
    for number, record in enumerate(reader, 2):
        yield _from_record(record, f"{path}:{number}", columns)


def _parquet(handle: IO[bytes], path: Path, columns: Columns) -> Iterator[Text]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(handle.read()) if path.suffix == ".gz" else handle)
        _require(columns.text, table.schema_arrow.names, str(path))
        wanted = [name for name in (columns.text, columns.kind) if name in table.schema_arrow.names]
        for batch in table.iter_batches(columns=wanted):
            for record in batch.to_pylist():
                yield _from_record(record, str(path), columns)
    except pyarrow.lib.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})", "copy or download it again") from error


def _read_hub(name: str, columns: Columns) -> Iterator[Text]:
    from datasets import load_dataset

    try:
        rows: Iterable[Any] = load_dataset(name, split="train", streaming=True)
        for record in rows:
            yield _from_record(record, name, columns)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise DataError(f"{name}: neither a file nor a data set that can be reached ({reason})", "check the path given to --data, or the network for a hub id") from error


def _from_record(record: Any, where: str, columns: Columns) -> Text:
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, found {type(record).__name__}", 'for example {"text": "…", "kind": "query"}')
    _require(columns.text, list(record), where)
    value, kind = record[columns.text], record.get(columns.kind) or columns.default_kind
    if kind not in KINDS:
        raise DataError(f"{where}: kind {kind!r}", f"{columns.kind} must be one of {', '.join(KINDS)}; name another field with --kind-field")
    return Text(value if isinstance(value, str) else "" if value is None else str(value), sys.intern(kind))


def _require(field: str, found: Sequence[str], where: str) -> None:
    if field not in found:
        raise DataError(f"{where}: no field {field!r}", f"name the text field with --field; found: {', '.join(map(str, found)) or 'none'}")


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
