"""What an index knows beside its vectors, in one SQLite file: documents, metadata, pieces, and which segments count.

A transaction of it is what makes vectors count that were written before; a crash leaves the state before it or after.
The journal is SQLite's older one and not WAL: the index stays one folder of plain files, which can be read from a
medium that cannot be written and over a network, and a commit for every thousand documents keeps readers waiting for
milliseconds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from emb.errors import ArtifactError, DiskError, EmbError
from emb.files import disk_errors
from emb.search.index.checksums import REBUILD
from emb.search.index.segments import FOLDER as SEGMENTS
from emb.search.index.soundness import damage_of

FILE = "index.sqlite"
_WAIT = 60  # seconds for another's commit, or for readers to end
_TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL,
    content BLOB NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS metadata (
    document INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name, value, document)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS metadata_of ON metadata (document);
CREATE TABLE IF NOT EXISTS passages (
    key INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    segment INTEGER NOT NULL, row INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS passages_of ON passages (document);
CREATE INDEX IF NOT EXISTS passages_in ON passages (segment, row);
CREATE TABLE IF NOT EXISTS segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, raw INTEGER NOT NULL, rows INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT OR IGNORE INTO settings VALUES ('state', '0');
"""


class Catalogue:
    """One connection to an index's SQLite file.

    Attributes:
        sql: for statements inside of `reading` or `writing`.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Raises:
        ArtifactError: no such file, not a database, or an empty file where there was one.
        DiskError: no room.
        """
        self.path = folder / FILE
        if not write and not self.path.is_file():
            raise ArtifactError(f"{self.path}: no such file", "build it anew: emb index DOCS --doc MODEL --out DIR")
        if write and self.path.is_file() and not self.path.stat().st_size and (folder / SEGMENTS).exists():
            raise ArtifactError(
                f"{self.path}: damaged (empty, and vectors lie beside it)",
                "put the former file back, or build it anew: emb index DOCS --doc MODEL --out DIR",
            )
        with self.errors():
            self.sql = sqlite3.connect(
                _address(self.path, "rwc" if write else _reading(self.path)),
                uri=True,
                timeout=_WAIT,
                isolation_level=None,
                check_same_thread=False,
            )
            if write:
                self.sql.execute("PRAGMA synchronous = FULL")
                self.sql.executescript(_TABLES)
        self._file = _identity(self.path)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One committed state, whatever is written meanwhile."""
        with self.errors():
            self.sql.execute("BEGIN")
            try:
                yield self.sql
            finally:
                self.sql.execute("ROLLBACK")

    @contextmanager
    def outside(self) -> Iterator[sqlite3.Connection]:
        """No transaction: each statement reads what is committed then."""
        with self.errors():
            yield self.sql

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside counts from its end on, or none of it."""
        with self.errors():
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield self.sql
                self.sql.execute("UPDATE settings SET value = value + 1 WHERE name = 'state'")
                self.sql.execute("COMMIT")
            finally:
                if self.sql.in_transaction:
                    self.sql.execute("ROLLBACK")

    def state(self) -> int:
        """A number that every commit changes.

        Raises:
            ArtifactError: none is there.
        """
        found = self.setting("state") or "0"
        if not found.isdecimal():
            raise _damaged(self.path, f"state {found!r}")
        return int(found)

    def setting(self, name: str) -> str | None:
        """A value by its name, or None."""
        row = self.sql.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, name: str, value: str) -> None:
        """Set a value."""
        self.sql.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def attach(self, folder: Path, name: str) -> None:
        """Let statements read the tables of another index: `name.documents`."""
        with self.errors():
            self.sql.execute(f"ATTACH DATABASE ? AS {name}", (_address(folder / FILE, _reading(folder / FILE)),))

    def require_there(self) -> None:
        """Raises:
        ArtifactError: another file is there, or none: what this one holds is found no more by those that ask now.
        """
        if _identity(self.path) != self._file:
            raise ArtifactError(
                f"{self.path.parent}: was removed, built anew or moved to another encoder since this index was opened",
                "open it again (start a server anew), with a query encoder of the space that `emb migrate` moved it to",
            )

    def close(self) -> None:
        """Close the connection."""
        self.sql.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Say in words a user understands what SQLite says, and of what nobody foresaw that the file is damaged, if
        it is: numbers and texts that were never written lead anywhere.

        Raises:
            ArtifactError: it is damaged, or kept busy.
            DiskError: it cannot be read or written.
        """
        try:
            with disk_errors(self.path.parent):
                yield
        except EmbError:
            raise
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise DiskError(
                    f"{self.path}: cannot be read or written ({error})",
                    "look at its permissions and at the space on the disk, and run the same command again; what is"
                    " committed is kept",
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ArtifactError(f"{self.path}: kept busy by another process", "try again later") from error
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) or isinstance(error, sqlite3.OperationalError):
                raise _damaged(self.path, str(error)) from error
            raise
        except Exception as error:
            if said := self._damage():
                raise _damaged(self.path, said) from error
            raise

    def _damage(self) -> str:
        """The first damage that is found, in words."""
        try:
            return next(damage_of(self.sql), "")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return str(error)


def _damaged(path: Path, said: str) -> ArtifactError:
    return ArtifactError(f"{path}: damaged ({said})", f"put the former file back, or {REBUILD}")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of the same name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reading(path: Path) -> str:
    """SQLite's mode for who reads: they may have to undo what a killed writer left, if the folder allows it."""
    return "rw" if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK) else "ro"


def _address(path: Path, mode: str) -> str:
    return f"file:{quote(str(path.absolute()))}?mode={mode}"
