"""Files of vectors: written once or at their end alone, and read through the memory map.

Whether their rows count is said by the catalogue; what stands in a file behind those, or in a file that it does not
name, is left of a crash and is never read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ArtifactError
from emb.files import disk_errors
from emb.quantize.vectors.base import Codes
from emb.search.index.checksums import REBUILD, require

FOLDER = "segments"
RAW, CODES, FINE, GRAPH = ".raw", ".codes", ".fine", ".faiss"


def place(index: Path, segment: int, kind: str) -> Path:
    """The file of a segment that holds its raw vectors, its codes, its finer vectors, or faiss's structure."""
    return index / FOLDER / f"{segment:06d}{kind}"


def append(path: Path, rows: bytes, behind: int) -> None:
    """Write rows behind the first `behind` bytes, and see that they are on the disk.

    Raises:
        DiskError: no room; what counted before still does.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b") as handle:
            handle.truncate(behind)
            handle.seek(behind)
            handle.write(rows)
            handle.flush()
            os.fsync(handle.fileno())
        sync_folder(path.parent)


def write(path: Path, parts: Iterable[np.ndarray[Any, Any]]) -> str:
    """Write a whole file of rows and see that it is on the disk; return its checksum.

    Raises:
        DiskError: no room.
    """
    seen = hashlib.sha256()
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            for part in parts:
                content = np.ascontiguousarray(part).tobytes()
                seen.update(content)
                handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        sync_folder(path.parent)
    return seen.hexdigest()


def mapped(path: Path, rows: int, width: int, dtype: Any, *, whole: bool = True, digest: str | None = None) -> Codes:
    """The rows `(rows, width)` of a file, read when they are needed; of one that is not `whole`, the first ones.

    Raises:
        ArtifactError: the file is missing, of another size, or small and not what `digest` says.
    """
    size = rows * width * np.dtype(dtype).itemsize
    found = path.stat().st_size if path.is_file() else -1
    if found < size or (whole and found > size):
        raise ArtifactError(
            f"{path}: missing, or {'shorter' if found < size else 'longer'} than its {rows:,} rows",
            REBUILD,
        )
    require(path, digest, size)
    return np.memmap(path, dtype, "r", shape=(rows, width)) if size else np.empty((rows, width), dtype)


def remove_others(index: Path, segments: set[int]) -> None:
    """Remove files of segments that are not among these: of a crash, or replaced by others."""
    for path in (index / FOLDER).glob("*.*"):
        if not path.stem.isdecimal() or int(path.stem) not in segments:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """See that a folder's new names are on the disk; Windows has no way to ask for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
