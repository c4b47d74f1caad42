"""Files that take records with their vectors block by block: .npy, .jsonl, .parquet; each can go on from the blocks of an interrupted call."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from emb.encoder import Vectors
from emb.errors import DataError
from emb.extras import needs_extra
from emb.records import Record, suffix
from emb.unfinished import DATA, Unfinished


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
    """Columns keep the types they had in a Parquet source; otherwise the first block decides them.

    A Parquet file cannot be gone on with. So the job's data holds the vectors alone, and a call that
    goes on writes the file anew from them and the source, which takes a fraction of encoding.
    """

    whole_records: ClassVar[bool] = False

    def __init__(self, job: Unfinished, source: Path, column: str, stack: ExitStack) -> None:
        with needs_extra():
            import pyarrow.parquet
        self.arrow, self.job, self.column, self.stack = pyarrow, job, column, stack
        self.schema = pyarrow.parquet.read_schema(source) if suffix(source) == ".parquet" and source.suffix != ".gz" else None
        self.path = job.folder / "whole.parquet"
        self.writer: Any = None

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """See `Writer`."""
        np.save(self.job.data, vectors, allow_pickle=False)
        self._write(records, vectors)

    def skip(self, records: Sequence[Record]) -> None:
        """See `Writer`."""
        self._write(records, np.load(io.BytesIO(self.job.taken()), allow_pickle=False))

    def finish(self) -> Path:
        """See `Writer`."""
        self.stack.close()
        return self.path

    def _write(self, records: Sequence[Record], vectors: Vectors) -> None:
        try:
            table = self.arrow.Table.from_pylist(list(records), schema=self.schema)
        except (self.arrow.ArrowInvalid, self.arrow.ArrowTypeError) as error:
            raise DataError(f"{self.path.name}: a field changes its type from record to record ({error})", "write .jsonl instead") from error
        self.schema = table.schema
        flat = self.arrow.array(np.ascontiguousarray(vectors).reshape(-1))
        table = table.append_column(self.column, self.arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        if self.writer is None:
            self.writer = self.stack.enter_context(self.arrow.parquet.ParquetWriter(self.path, table.schema))
        self.writer.write_table(table)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + f"{described!r:117}\n".encode()  # 128 bytes, whatever the shape


WRITERS: dict[str, Callable[[Unfinished, Path, str, ExitStack], Writer]] = {".parquet": Parquet, ".jsonl": JsonLines, ".npy": Numpy}
