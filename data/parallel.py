"""Reading parallel text, a text and its translation at a time: the input that makes a student multilingual."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from emb.data.records import Located, guarded, read_records, rows, suffix
from emb.errors import DataError
from emb.progress import note

TEXT, TRANSLATION = FIELDS = ("text", "translation")
SUFFIXES = (".tsv", ".jsonl", ".csv", ".parquet")
_LANGUAGE = re.compile(r"[a-z]{2}(-[A-Za-z]{2,4})?")  # en, pt-br, zh-Hans


def read_pairs(path: Path) -> Located:
    """Yield every record and where it stands; each has the fields text and translation.

    A .tsv has two columns. Its first line is a header, and no pair, if it says `text` and `translation`, or the codes
    of two languages, as in published files: at worst a pair of two-letter words is lost.

    Raises:
        DataError: a kind of file that holds no pairs, a line of any other number of columns, a record without one of
            the fields, or what `read_records` raises.
    """
    if suffix(path) not in SUFFIXES:
        hint = f"pairs are read from {' '.join(SUFFIXES)}, each also as .gz"
        raise DataError(f"{path}: holds no pairs of a text and its translation", hint)
    if suffix(path) == ".tsv":
        yield from guarded(path, lambda handle: _two_columns(handle, path))
        return
    for where, record in read_records(path, ""):
        _refuse_missing(list(record), where)
        yield where, record


def _two_columns(handle: IO[bytes], path: Path) -> Located:
    for number, (where, row) in enumerate(rows(handle, path)):
        if len(row) != len(FIELDS):
            found = "one column" if len(row) == 1 else f"{len(row)} columns"
            hint = "a line is a text, a tab, its translation; texts that hold a tab go into a .csv or .jsonl file"
            raise DataError(f"{where}: {found}, not a text and its translation", hint)
        if number == 0 and _is_header(row):
            note(f"{where}: {row[0]}, {row[1]}: taken for a header")
        else:
            yield where, dict(zip(FIELDS, row, strict=True))


def _is_header(row: Sequence[str]) -> bool:
    languages = row[0] != row[1] and all(_LANGUAGE.fullmatch(cell) for cell in row)
    return tuple(row) == FIELDS or languages


def _refuse_missing(found: Sequence[str], where: str) -> None:
    for field in FIELDS:
        if field not in found:
            there = ", ".join(map(str, found)) or "none"
            raise DataError(
                f"{where}: no field {field!r}", f"--parallel takes records with text and translation; found: {there}"
            )
