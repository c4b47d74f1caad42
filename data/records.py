"""Reading files of records one at a time: text, Markdown, JSON Lines, CSV, Parquet, and `.gz` of each."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeAlias

from emb.data.parquet import open_parquet
from emb.errors import DataError
from emb.progress import warn

Record: TypeAlias = dict[str, Any]
Located: TypeAlias = Iterator[tuple[str, Record]]
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair: JSON can spell it, no tokenizer and no UTF-8 file takes it
_ROWS = 1024  # of Parquet as Python objects at a time; the default, 65,536, takes more memory than a small model


# Beginnings of files that are not what their name says: what they are, and how to get the text.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe\x00\x00", "UTF-32, not UTF-8", "iconv -f UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32, not UTF-8", "iconv -f UTF-32"),
    (b"\xff\xfe", "UTF-16 (little-endian), not UTF-8", "iconv -f UTF-16"),
    (b"\xfe\xff", "UTF-16 (big-endian), not UTF-8", "iconv -f UTF-16"),
    (b"\x1f\x8b", "packed with gzip", "add .gz to its name"),
    (b"PK\x03\x04", "a zip file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it first: zstd -d"),
    (b"PAR1", "a Parquet file", "give it the suffix .parquet"),
    (b"version https://git-lfs.github.com/", "a git-lfs pointer, not the data itself", "get the data: git lfs pull"),
)


class _Twice(Exception):
    """A key that stands twice in one JSON object."""


def read_records(path: Path, field: str = "text", wanted: Sequence[str] | None = None) -> Located:
    """Yield every record with where it stands (`file:line`; a row of Parquet: `file, row n`).

    Memory does not grow with the file. A line of a .txt and a paragraph of a .md file become `{field: …}`. `wanted`
    bounds the columns read from Parquet, which stores them apart; there `field` must be one, unless it is empty. Half a
    surrogate pair becomes U+FFFD in every
    string of a record, with a warning.

    Raises:
        DataError: an unknown kind of file, or one that is damaged, not UTF-8 or without the field; a row that is
            longer or shorter than its header; a key or column that stands twice.
    """
    reader = _READERS.get(suffix(path))
    if reader is None:
        raise DataError(f"{path}: unknown kind of file", f"known: {' '.join(SUFFIXES)}, each also as .gz")
    yield from guarded(path, lambda handle: reader(handle, path, field, wanted))


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every line that is not blank, without its end, and where it stands (`file:line`).

    Raises:
        DataError: a file that is damaged or not UTF-8.
    """
    for where, record in guarded(path, lambda handle: _lines(handle, path, "line", None)):
        if record["line"].strip():
            yield where, record["line"]


def guarded(path: Path, reader: Callable[[IO[bytes]], Located]) -> Located:
    """What `reader` finds in the unpacked file; whatever is wrong with its bytes is a DataError."""
    try:
        with _open(path) as handle:
            _refuse_foreign(handle, path)
            yield from reader(handle)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error})", "copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})", "check the file and its permissions") from error


def suffix(path: Path) -> str:
    """A file's kind: its suffix in lower case, that before `.gz` if it is packed."""
    return (path.with_suffix("") if is_packed(path) else path).suffix.lower()


def is_packed(path: Path) -> bool:
    """Whether a file's name ends in `.gz`, in whatever case."""
    return path.suffix.lower() == ".gz"


def text_of(record: Record, field: str, where: str) -> str:
    """The text in a record's `field`; null is an empty one.

    Raises:
        DataError: no such field, or what it holds is no text: NaN, a number, a list, a NUL character.
    """
    _require(field, list(record), where)
    value = record[field]
    if value is None:
        return ""
    if not isinstance(value, str):
        hint = "texts are strings; leave out the records that have none (pandas: dropna)"
        raise DataError(f"{where}: {field!r} is {_shown(value)}, not a text", hint)
    if "\0" in value:
        hint = (
            "is the file binary, or UTF-16? If it is neither: tr -d '\\000' takes them out (in JSON they are written"
            " \\u0000)"
        )
        raise DataError(f"{where}: {field!r} holds a NUL character", hint)
    return whole(value)


def whole(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _shown(value: Any) -> str:
    names = {bool: "true or false", dict: "an object", list: "a list", bytes: "bytes"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "NaN" if value != value else f"the number {value}"
    return names.get(type(value), f"a {type(value).__name__}")


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if is_packed(path) else path.open("rb")  # type: ignore[return-value]


def _refuse_foreign(handle: Any, path: Path) -> None:
    head: bytes = handle.peek(256)[:256]
    for beginning, found, mend in _FOREIGN:
        if head.startswith(beginning) and not (beginning == b"PAR1" and suffix(path) == ".parquet"):
            raise DataError(f"{path}: {found}", _recoded(mend, path))
    if suffix(path) != ".parquet" and (name := _utf16_without_mark(head)):
        raise DataError(f"{path}: {name}, not UTF-8", _recoded(f"iconv -f {name}", path))


def _utf16_without_mark(head: bytes) -> str:
    # Latin text in UTF-16 has a NUL beside every character.
    even, odd = head[: len(head) // 2 * 2 : 2], head[1::2]
    if odd and not any(odd) and all(even):
        return "UTF-16LE"
    return "UTF-16BE" if odd and not any(even) and all(odd) else ""


def _recoded(mend: str, path: Path) -> str:
    if not mend.startswith("iconv"):
        return mend
    packed = is_packed(path)
    name = path.stem if packed else path.name
    return (
        f"convert it: {f'gunzip -c {path.name} | {mend}' if packed else mend} -t UTF-8{'' if packed else f' {name}'} >"
        f" utf8-{name}"
    )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    number, line = _undecodable(path)
    found = "cp1252" if re.search(rb"[\x80-\x9f]", line) else "latin1"
    said = f"not UTF-8 (byte 0x{error.object[error.start]:02x}: {error.reason}), first at {path.name}:{number}"
    return DataError(f"{path}: {said}", _recoded(f"iconv -f {found}", path))


def _undecodable(path: Path) -> tuple[int, bytes]:
    number = 0
    with _open(path) as handle:
        for number, line in enumerate(handle, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number, line
    return number, b""  # cut off inside the last character


def _decoded(handle: IO[bytes]) -> io.TextIOWrapper:
    return io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")


def _lines(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    for number, line in enumerate(_decoded(handle), 1):
        yield f"{path}:{number}", {field: line.rstrip("\r\n")}


def _paragraphs(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    paragraph: list[str] = []
    for number, line in enumerate(chain(_decoded(handle), ["\n"]), 1):
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            yield f"{path}:{number - len(paragraph)}", {field: " ".join(paragraph)}
            paragraph = []


def _jsonl(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    halves: list[str] = []
    try:
        for number, line in enumerate(_decoded(handle), 1):
            if line.strip():
                where = f"{path}:{number}"
                record = _object(line, where)
                if ("\\ud" in line or "\\uD" in line) and (mended := _mended(record)) != record:
                    record = mended
                    halves.append(where)
                yield where, record
    finally:  # a reader that has enough texts stops early
        if halves:
            warn(f"{halves[0]}: half of a surrogate pair, read as U+FFFD; records with such: {len(halves):,}")


def _object(line: str, where: str) -> Record:
    try:
        record = json.loads(line, object_pairs_hook=_unique)
    except _Twice as error:
        raise DataError(f"{where}: the key {error} stands twice in one object", "keep one of them") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})", "each line must be one JSON object") from error
    if not isinstance(record, dict):
        hint = 'for example {"text": "…", "kind": "query"}'
        raise DataError(f"{where}: expected an object, found {type(record).__name__}", hint)
    return record


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(ascii(next(name for name in names if names.count(name) > 1)))
    return record


def _mended(value: Any) -> Any:
    """A JSON value with U+FFFD for each half of a surrogate pair, in keys too."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    return {whole(key): _mended(item) for key, item in value.items()} if isinstance(value, dict) else value


def _csv(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    found = rows(handle, path)
    _, header = next(found, ("", []))
    _refuse_twins(header, f"{path}:1")
    for where, row in found:
        if len(row) != len(header):
            raise DataError(
                f"{where}: {len(row)} fields where the header has {len(header)} columns", _ROW_HINTS[suffix(path)]
            )
        yield where, dict(zip(header, row, strict=True))


def rows(handle: IO[bytes], path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every row of a .csv or .tsv that is not blank, and the line it begins on: quoted text may go over many."""
    csv.field_size_limit(sys.maxsize)
    # Tab-separated text has no quoting: a lone " there is a character, not the start of ten lines.
    quoting: dict[str, Any] = (
        {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix(path) == ".tsv" else {"strict": True}
    )
    reader, begun = csv.reader(_decoded(handle), **quoting), 1
    try:
        for row in reader:
            if row:
                yield f"{path}:{begun}", row
            begun = reader.line_num + 1
    except csv.Error as error:
        said = "a quotation mark is opened and never closed" if "end of data" in str(error) else f"not CSV ({error})"
        raise DataError(f"{path}:{begun}: {said}", _ROW_HINTS[".csv"]) from error


def _parquet(handle: IO[bytes], path: Path, field: str, wanted: Sequence[str] | None) -> Located:
    with open_parquet(io.BytesIO(handle.read()) if is_packed(path) else handle, named=path) as table:
        names = table.schema_arrow.names
        if field:
            _require(field, names, str(path))
        _refuse_twins(names, str(path))
        kept, number = names if wanted is None else [name for name in names if name in wanted], 0
        for batch in table.iter_batches(_ROWS, columns=kept):
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", record


def _refuse_twins(names: Sequence[str], where: str) -> None:
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(f"{where}: two columns are named {name!r}", "rename or remove one of them")


def _require(field: str, found: Sequence[str], where: str) -> None:
    if field not in found:
        raise DataError(
            f"{where}: no field {field!r}",
            f"name the text field with --field; found: {', '.join(map(str, found)) or 'none'}",
        )


_ROW_HINTS = {
    ".csv": 'put texts that hold a comma or a line break in quotes, and write a " inside them twice',
    ".tsv": "texts in .tsv hold no tab and no line break; save it as .csv where texts are quoted",
}
_READERS: dict[str, Callable[[IO[bytes], Path, str, Sequence[str] | None], Located]] = {
    ".txt": _lines,
    ".md": _paragraphs,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)  # each also as .gz
