"""Checksums of an index's files: taken while these are written, and kept in its catalogue under their names.

What is small is compared whenever it is read, the rest when somebody asks for it (`whole.py`) and before it is written
anew, which would seal what is damaged. A file of an index that was written before there were any has none.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from emb.errors import ArtifactError

SMALL = 32 << 20  # bytes that are hashed in some 30 ms
REBUILD = "build it anew: emb index DOCS --doc MODEL --out DIR"
_NAME, _BLOCK = "sha256 ", 1 << 20


def put(sql: sqlite3.Connection, path: Path, digest: str) -> None:
    """Keep a file's checksum, inside of a transaction."""
    sql.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (_NAME + path.name, digest))


def known(sql: sqlite3.Connection) -> dict[str, str]:
    """Hex sha256 of files by their names."""
    found = sql.execute("SELECT name, value FROM settings WHERE name >= ? AND name < ?", (_NAME, _NAME + "~"))
    return {str(name).removeprefix(_NAME): str(digest) for name, digest in found}


def forget(sql: sqlite3.Connection, path: Path) -> None:
    """Drop the checksum of a file that counts no more, inside of a transaction."""
    sql.execute("DELETE FROM settings WHERE name = ?", (_NAME + path.name,))


def require(path: Path, digest: str | None, size: int, *, large: bool = False) -> None:
    """Compare the first `size` bytes of a file with its checksum, if it has one; `large` ones as well.

    Raises:
        ArtifactError: the file is missing, or they have changed since they were written.
    """
    if digest is not None and (large or size <= SMALL) and not is_as_written(path, digest, size):
        raise ArtifactError(
            f"{path}: missing, or changed since it was written", f"put the former file back, or {REBUILD}"
        )


def is_as_written(path: Path, digest: str, size: int) -> bool:
    """Whether the first `size` bytes of a file have this checksum."""
    if not path.is_file():
        return False
    seen = hashlib.sha256()
    with path.open("rb") as handle:
        while size > 0 and (part := handle.read(min(size, _BLOCK))):
            seen.update(part)
            size -= len(part)
    return not size and seen.hexdigest() == digest
