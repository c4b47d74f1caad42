"""Parquet files: opened in one place, and what is wrong with one said in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from emb.errors import DataError, needs_extra


@contextmanager
def open_parquet(source: Path | IO[bytes], named: Path | None = None) -> Iterator[Any]:
    """The `pyarrow.parquet.ParquetFile` of a path or of bytes; `named` is what errors say it is.

    Raises:
        DataError: a file that is damaged, encrypted, or holds what Python has no value for.
        MissingExtra: pyarrow is not installed.
    """
    with needs_extra():
        import pyarrow.parquet
    path = named or source
    try:
        # pyarrow maps what it is given as a path; compressed bytes it cannot seek in.
        with pyarrow.parquet.ParquetFile(source) as opened:
            yield opened
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: holds strings that are not UTF-8 ({error.reason})", "write the column anew from UTF-8 strings"
        ) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})", "copy or download it again") from error
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: holds a value that Python has none for ({error})", "leave its column out, or write it as text"
        ) from error
