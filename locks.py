"""A file that one process has at a time.

The file may be removed while it is locked, which the library `filelock` does not allow: the lock of a job lies in the
job's own folder and goes with it.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from emb.files import disk_errors

_FAR = 2**31 - 2  # Windows lets nobody read a byte that is locked: one behind all content
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open for reading and writing; what a full disk left in the buffer must not raise again."""
    path.touch()
    handle = path.open("r+b")
    try:
        yield handle
    finally:
        with suppress(OSError):
            handle.close()


@contextmanager
def locked(path: Path, busy: Callable[[], object]) -> Iterator[IO[bytes]]:
    """Open a file that only one process has at a time; the lock falls with the process, however it ends.

    `busy` is called while another has it: it raises, or returns to wait. Who waited for a file that was removed takes
    the new one.

    Raises:
        DiskError: the file cannot be written there.
    """
    while True:
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with opened(path) as handle:
            if not _lock(handle, wait=False):
                busy()
                _lock(handle, wait=True)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(handle.fileno())):
                yield handle
                return


@contextmanager
def held_for_reading(path: Path, busy: Callable[[], object]) -> Iterator[None]:
    """As `locked`, for who writes nothing beside the lock: where its folder cannot be written, a file that is there is
    locked without writing, and one that is not there is locked by nobody.

    Raises:
        DiskError: the file cannot be read.
    """
    if os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK)):
        with locked(path, busy):
            yield
    elif path.exists():
        with disk_errors(path), path.open("rb") as handle:
            if not _lock(handle, wait=False, shared=True):
                busy()
                _lock(handle, wait=True, shared=True)
            yield
    else:
        yield


def _lock(handle: IO[bytes], *, wait: bool, shared: bool = False) -> bool:
    """Whether the lock was taken; on a file system that has none it always is."""
    if sys.platform == "win32":
        return _lock_on_windows(handle, wait=wait)
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True


def _lock_on_windows(handle: IO[bytes], *, wait: bool) -> bool:
    msvcrt = __import__("msvcrt")  # whose functions a type checker on another system does not know
    place = handle.tell()
    while True:
        try:
            handle.seek(_FAR)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        except OSError:
            if not wait:
                return False
            time.sleep(0.1)
        finally:
            handle.seek(place)
