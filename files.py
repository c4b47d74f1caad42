"""Writing files so that a crash leaves the old one or the new one, never a half."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emb.errors import ArtifactError, DiskError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EROFS, errno.EPERM}
_NO_PLACE = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_NUMPY = re.compile(r"\d+ requested and \d+ written")


def cache_root() -> Path:
    """`$EMB_CACHE`, or `emb` in the user's cache folder, which of a user without a home is that of temporary files."""
    if own := os.environ.get("EMB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or _users_cache()) / "emb"


def _users_cache() -> Path:
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # the user of a container has a number and nothing else
        return Path(tempfile.gettempdir())


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below `path` into a `DiskError`.

    Libraries written in Rust report a full disk as their own exception with the errno in the text, and numpy says how
    much it wrote without any, so the text is looked at as well.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM or _NUMPY.fullmatch(str(error)):
            raise _disk_full(path) from error
        if error.errno in _NOT_ALLOWED or (error.errno in _NO_PLACE and _is_about(error, path)):
            raise DiskError(f"{path}: cannot be written ({error.strerror})", "choose another place to write") from error
        raise
    except Exception as error:
        if any(sign in str(error) for sign in ("os error 28", "os error 27", "No space left")):
            raise _disk_full(path) from error
        raise


def _is_about(error: OSError, path: Path) -> bool:
    """Whether it is the place of `path` that an error names, and not a file that is read meanwhile."""
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    return named is not None and (named in path.parents or named.is_relative_to(path.parent))


def _disk_full(path: Path) -> DiskError:
    return DiskError(
        f"{path}: the disk is full", "free some space and run the same command again; finished work is kept"
    )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path`, on error it is removed."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it becomes `path`.

    Raises:
        ArtifactError: `path` already exists and `replace` is not set.
    """
    refuse_existing(path, replace)
    name = f".{path.name}.{uuid.uuid4().hex[:8]}"
    # What is replaced goes aside whole: removing it takes a while, and half of it is of no use to anybody.
    partial, former = path.with_name(f"{name}.partial"), path.with_name(f"{name}.former.partial")
    with disk_errors(path):
        try:
            partial.mkdir(parents=True)
            yield partial
            _open_to_readers(partial)
            for inside in partial.rglob("*"):
                _sync(inside)  # some libraries write without
            if replace and path.exists():
                path.replace(former)
            partial.replace(path)
        finally:
            if former.exists() and not path.exists():
                former.replace(path)
            shutil.rmtree(partial, ignore_errors=True)
            former.unlink() if former.is_file() else shutil.rmtree(former, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Let whoever may read a folder that is new read its files: safetensors writes them for their owner alone."""
    wanted = folder.stat().st_mode & 0o444
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & wanted != wanted:
            path.chmod(path.stat().st_mode | wanted)


def refuse_existing(path: Path, replace: bool) -> None:
    """Raise `ArtifactError` if `path` holds something that would be written over, or is a place without a name, which
    nothing can take in one step.
    """
    with disk_errors(path):
        _refuse_existing(path, replace)


def _refuse_existing(path: Path, replace: bool) -> None:
    if path.name in ("", ".."):
        raise ArtifactError(f"{path}: the folder to write has no name of its own", "name one, such as --out made")
    if not replace and path.exists() and (path.is_file() or any(path.iterdir())):
        raise ArtifactError(f"{path}: already exists", "choose another --out, or add --overwrite to replace it")
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file") from error
    except ValueError as error:
        raise ArtifactError(
            f"{path}: is not valid JSON ({error})", "make the file again with the command that wrote it"
        ) from error


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
