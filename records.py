"""Reading files of records one at a time: text, Markdown, JSON Lines, CSV, Parquet, and `.gz` of each."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from emb.errors import DataError
from emb.extras import needs_extra

SUFFIXES = (".txt", ".md", ".jsonl", ".csv", ".tsv", ".parquet")
Record: TypeAlias = dict[str, Any]
Located: TypeAlias = Iterator[tuple[str, Record]]
_ROWS = 1024  # of Parquet as Python objects at a time; the default, 65,536, takes more memory than a small model


def read_records(path: Path, field: str = "text", wanted: Sequence[str] | None = None) -> Located:
    """Yield every record with where it stands (`file:line`); memory does not grow with the file.

    A line of a .txt and a paragraph of a .md file become `{field: …}`. `wanted` bounds the
    columns read from Parquet, which stores them apart.

    Raises:
        DataError: an unknown kind of file, or one that is damaged, not UTF-8 or without records.
    """
    reader = _READERS.get(suffix(path))
    if reader is None:
        raise DataError(f"{path}: unknown kind of file", f"known: {' '.join(SUFFIXES)}, each also as .gz")
    try:
        with _open(path) as handle:
            yield from reader(handle, path, field, wanted)
    except UnicodeDecodeError as error:
        hint = f"convert it: iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}"
        raise DataError(f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x}: {error.reason})", hint) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error})", "copy or download it again") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})", "check the file and its permissions") from error


def suffix(path: Path) -> str:
    """A file's kind: its suffix in lower case, that before `.gz` if it is packed."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def text_of(record: Record, field: str, where: str) -> str:
    """The text in a record's `field`; null is an empty one.

    Raises:
        DataError: no such field.
    """
    _require(field, list(record), where)
    value = record[field]
    return value if isinstance(value, str) else "" if value is None else str(value)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _decoded(handle: IO[bytes]) -> io.TextIOWrapper:
    return io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")


def _lines(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    for number, line in enumerate(_decoded(handle), 1):
        yield f"{path}:{number}", {field: line.rstrip("\r\n")}


def _paragraphs(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    paragraph: list[str] = []
    for number, line in enumerate([*_decoded(handle), "\n"], 1):
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            yield f"{path}:{number}", {field: " ".join(paragraph)}
            paragraph = []


def _jsonl(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    for number, line in enumerate(_decoded(handle), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})", "each line must be one JSON object") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: expected an object, found {type(record).__name__}", 'for example {"text": "…", "kind": "query"}')
        yield f"{path}:{number}", record


def _csv(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    csv.field_size_limit(sys.maxsize)
    # Tab-separated text has no quoting: a lone " there is a character, not the start of ten lines.
    tabs: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix(path) == ".tsv" else {}
    for number, record in enumerate(csv.DictReader(_decoded(handle), **tabs), 2):
        yield f"{path}:{number}", record


def _parquet(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    with needs_extra():
        import pyarrow.lib
        import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(handle.read()) if path.suffix == ".gz" else handle)
        names = table.schema_arrow.names
        _require(field, names, str(path))
        for batch in table.iter_batches(_ROWS, columns=names if wanted is None else [name for name in names if name in wanted]):
            for record in batch.to_pylist():
                yield str(path), record
    except pyarrow.lib.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})", "copy or download it again") from error


def _require(field: str, found: Sequence[str], where: str) -> None:
    if field not in found:
        raise DataError(f"{where}: no field {field!r}", f"name the text field with --field; found: {', '.join(map(str, found)) or 'none'}")


_READERS: dict[str, Callable[[IO[bytes], Path, str, Sequence[str] | None], Located]] = {
    ".txt": _lines, ".md": _paragraphs, ".jsonl": _jsonl, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet,
}  # fmt: skip
