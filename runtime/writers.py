"""Files that take records with their vectors block by block: .npy, .jsonl, .parquet; each can go on from the blocks of
an interrupted call.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from emb.data.parquet import open_parquet
from emb.data.records import Record, is_packed, suffix
from emb.errors import DataError, needs_extra
from emb.runtime.unfinished import DATA, Unfinished
from emb.similarity import Vectors

ROW_GROUP = 4096  # records of a Parquet file that are written together


class Writer(Protocol):
    """Writes one file in a job's folder.

    Attributes:
        whole_records: whether a block's bytes depend on more of a record than its text.
    """

    whole_records: ClassVar[bool]

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append a block to the job's data."""

    def skip(self, records: Sequence[Record]) -> None:
        """Take over the block that the job took last: an earlier call wrote it."""

    def finish(self) -> Path:
        """Complete the file and say where it is."""


class JsonLines:
    """The job's data is the file."""

    whole_records: ClassVar[bool] = True

    def __init__(self, job: Unfinished, source: Path, column: str, stack: ExitStack) -> None:
        self.job, self.column = job, column

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """See `Writer`."""
        for record, vector in zip(records, vectors.tolist(), strict=True):
            line = json.dumps(record | {self.column: vector}, ensure_ascii=False, default=str)
            self.job.data.write(f"{line}\n".encode())

    def skip(self, records: Sequence[Record]) -> None:
        """See `Writer`."""

    def finish(self) -> Path:
        """See `Writer`."""
        return self.job.folder / DATA


class Numpy:
    """The job's data is the file; its header says how many rows there are, so it is written again at the end."""

    whole_records: ClassVar[bool] = False

    def __init__(self, job: Unfinished, source: Path, column: str, stack: ExitStack) -> None:
        self.job, self.rows = job, 0

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """See `Writer`."""
        if not self.rows:
            self.job.data.write(_header(vectors.dtype, (0, vectors.shape[1])))
        self.job.data.write(np.ascontiguousarray(vectors).tobytes())
        self.rows += len(records)

    def skip(self, records: Sequence[Record]) -> None:
        """See `Writer`."""
        self.rows += len(records)

    def finish(self) -> Path:
        """See `Writer`."""
        data = self.job.data
        data.seek(0)
        np.lib.format.read_magic(data)
        shape, _, dtype = np.lib.format.read_array_header_1_0(data)
        data.seek(0)
        data.write(_header(dtype, (self.rows, shape[1])))
        data.flush()
        return self.job.folder / DATA


class Parquet:
    """Columns keep the types they had in a Parquet source; otherwise the first rows decide them.

    A Parquet file cannot be gone on with. So the job's data holds the vectors alone, and a call that goes on writes
    the file anew from them and the source, which takes a fraction of encoding.
    """

    whole_records: ClassVar[bool] = False

    def __init__(self, job: Unfinished, source: Path, column: str, stack: ExitStack) -> None:
        with needs_extra():
            import pyarrow.parquet
        self.arrow, self.job, self.source, self.column, self.stack = pyarrow, job, source, column, stack
        self.schema = None
        if suffix(source) == ".parquet" and not is_packed(source):
            with open_parquet(source) as table:
                self.schema = table.schema_arrow
        self.typed = self.schema is not None
        self.path = job.folder / "whole.parquet"
        self.writer: Any = None
        self.records: list[Record] = []
        self.vectors: list[Vectors] = []

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """See `Writer`."""
        np.save(self.job.data, vectors, allow_pickle=False)
        self._take(records, vectors)

    def skip(self, records: Sequence[Record]) -> None:
        """See `Writer`."""
        self._take(records, np.load(io.BytesIO(self.job.taken()), allow_pickle=False))

    def finish(self) -> Path:
        """See `Writer`."""
        self._write()
        self.stack.close()
        return self.path

    def _take(self, records: Sequence[Record], vectors: Vectors) -> None:
        self.records += records
        self.vectors.append(vectors)
        if len(self.records) >= ROW_GROUP:
            self._write()

    def _write(self) -> None:
        if not self.records:
            return
        try:
            table = self._table(self.records)
            if self.writer is None:
                self.writer = self._open(table.schema)
            self.writer.write_table(table.append_column(self.column, self._lists(np.concatenate(self.vectors))))
        except (self.arrow.ArrowException, OverflowError) as error:
            raise DataError(
                f"{self.source}: a field that one column of Parquet cannot hold ({error})", "write .jsonl instead"
            ) from error
        self.records, self.vectors = [], []

    def _table(self, records: list[Record]) -> Any:
        """The records as a table of the columns decided; nothing of a record is left out or rounded to fit them."""
        if self.schema is None:
            # Of a list, pyarrow takes the names from the first record alone.
            names = list(dict.fromkeys(name for record in records for name in record))
            table = self.arrow.table([self.arrow.array([each.get(name) for each in records]) for name in names], names)
        else:
            table = self.arrow.Table.from_pylist(records, schema=self.schema)
        if not self.typed and (changed := _changed(records, table)) is not None:
            raise DataError(
                f"{self.source}: the field {changed!r} does not fit the columns that earlier records have decided",
                "write .jsonl instead",
            )
        self.schema = table.schema
        return table

    def _lists(self, vectors: Vectors) -> Any:
        return self.arrow.FixedSizeListArray.from_arrays(self.arrow.array(vectors.reshape(-1)), vectors.shape[1])

    def _open(self, schema: Any) -> Any:
        # All columns but the vectors are looked through for values that repeat: in vectors few do, and to look took
        # more memory than all else.
        empty = io.BytesIO()
        self.arrow.parquet.write_table(schema.empty_table(), empty)
        with open_parquet(empty) as table:
            leaves = [column.path for column in table.schema]
        whole = schema.append(self.arrow.field(self.column, self._lists(self.vectors[0]).type))
        return self.stack.enter_context(self.arrow.parquet.ParquetWriter(self.path, whole, use_dictionary=leaves))


def _changed(records: Sequence[Record], table: Any) -> str | None:
    """The first field that a record has and the table lacks, or has otherwise."""
    for record, row in zip(records, table.to_pylist(), strict=True):
        for name, value in record.items():
            if name not in row or not _holds(row[name], value):
                return name
    return None


def _holds(kept: Any, value: Any) -> bool:
    """Whether a value is what was kept of it; a key that only other records have is kept as null."""
    if isinstance(value, dict) and isinstance(kept, dict):
        return value.keys() <= kept.keys() and all(_holds(kept[name], value.get(name)) for name in kept)
    if isinstance(value, list) and isinstance(kept, list):
        return len(value) == len(kept) and all(map(_holds, kept, value))
    return bool(kept == value or (kept != kept and value != value))


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    # 128 bytes, whatever the shape.
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + f"{described!r:117}\n".encode()


WRITERS: dict[str, Callable[[Unfinished, Path, str, ExitStack], Writer]] = {
    ".parquet": Parquet,
    ".jsonl": JsonLines,
    ".npy": Numpy,
}
