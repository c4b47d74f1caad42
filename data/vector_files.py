"""Vectors that a codec can be fitted to: a .npy file, a column of a Parquet file, or a folder of the teacher cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emb.data.parquet import open_parquet
from emb.errors import DataError
from emb.similarity import Vectors

_HINT = (
    "give a .npy file (texts, dim) of floats, a .parquet file that emb encode wrote, or a folder of the teacher cache"
)
_NAME_IT = "name another with --column"


def read_vectors(path: Path, *, column: str = "vector", limit: int | None = None) -> Vectors:
    """Vectors `(texts, dim)` float32; with `limit`, as many, evenly spread.

    Raises:
        DataError: no such file, or no vectors in it.
    """
    found = [_shard(file) for file in sorted(path.glob("*.npy"))] if path.is_dir() else [_file(path, column)]
    if not found or any(
        part.ndim != 2 or part.dtype.kind != "f" or part.shape[1] != found[0].shape[1] for part in found
    ):
        raise DataError(f"{path}: no float vectors of one dim in it", _HINT)
    ends = np.cumsum([len(part) for part in found])
    rows = np.linspace(0, ends[-1] - 1, min(limit or ends[-1], ends[-1])).astype(int)
    starts = ends - [len(part) for part in found]
    taken = [
        part[rows[(rows >= start) & (rows < end)] - start] for part, start, end in zip(found, starts, ends, strict=True)
    ]
    return np.concatenate([np.asarray(part, np.float32) for part in taken])


def _file(path: Path, column: str) -> Vectors:
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder", _HINT)
    if path.suffix == ".npy":
        return _shard(path)
    if path.suffix == ".parquet":
        return _parquet(path, column)
    raise DataError(f"{path}: unknown kind of file", _HINT)


def _shard(path: Path) -> Vectors:
    try:
        array: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable .npy file ({error})", _HINT) from error
    return array["vector"] if "vector" in (array.dtype.names or ()) else array


def _parquet(path: Path, column: str) -> Vectors:
    with open_parquet(path) as table:
        names = table.schema_arrow.names
        if column not in names:
            raise DataError(f"{path}: no column {column!r} of vectors, but {', '.join(names)}", _NAME_IT)
        chunks = table.read(columns=[column]).column(column).combine_chunks()
    try:
        return np.asarray(chunks.values if hasattr(chunks, "values") else chunks).reshape(len(chunks), -1)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: column {column!r} holds no vectors of one length ({error})", _NAME_IT) from error
