"""Finished blocks of a long job, kept beside its output until that is whole, so that the same command goes on where it
stopped.

A hidden folder holds `data`, to which blocks are appended, and `blocks`, which lists those whose bytes are known to
be on the disk, each with a hash of what it was made from. A process killed at any moment leaves at worst a torn end
behind the last block listed, and that is cut off.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, NamedTuple

from emb.errors import ArtifactError
from emb.files import disk_errors
from emb.locks import locked, opened
from emb.progress import note

DATA, LIST = "data", "blocks"
SECONDS = 2.0  # of work that a killed process loses; to wait for the disk at every block would cost some of its time
_LINE = "{0.made_from:64} {0.end:>20} {0.texts:>20}\n"  # of one length, so that a torn one is seen
_WIDTH = 64 + 21 + 21 + 1


class Block(NamedTuple):
    """What a block was made from, as a sha256; where in `data` it ends; how many texts it holds."""

    made_from: str
    end: int
    texts: int


class Unfinished:
    """The blocks of one job, in order; `open_unfinished` makes one.

    Attributes:
        folder: for other files of the job; it goes with the job's end.
        data: what blocks are appended to.
    """

    def __init__(self, folder: Path, listing: IO[bytes], data: IO[bytes]) -> None:
        self.folder, self.data, self._listing = folder, data, listing
        self._before = deque(_listed(listing.read(), data.seek(0, os.SEEK_END)))
        self._unlisted: list[Block] = []
        self._count, self._start, self._end, self._saved = 0, 0, 0, time.monotonic()

    @property
    def waiting(self) -> int:
        """Texts of the blocks that were there at the start and were not taken yet."""
        return sum(block.texts for block in self._before)

    @property
    def empty(self) -> bool:
        """Whether no block is listed."""
        return not self._count and not self._before

    def take(self, made_from: str) -> bool:
        """Whether the next block is there, made from the same; if not, `data` stands where it is to be written."""
        if self._before and self._before[0].made_from == made_from:
            self._start, self._end = self._end, self._before.popleft().end
            self._count += 1
            return True
        if self._before:
            note(f"{self.waiting:,} texts are others than before: encoded again")
            self._before.clear()
        self._listing.truncate(self._listing.seek(self._count * _WIDTH))
        self.cut()
        return False

    def cut(self) -> None:
        """Drop what `data` holds behind the last block: the torn end of one, or blocks that are not wanted any more."""
        self.data.truncate(self.data.seek(self._end))

    def taken(self) -> bytes:
        """The bytes of the block taken last."""
        self.data.seek(self._start)
        return self.data.read(self._end - self._start)

    def add(self, made_from: str, texts: int) -> None:
        """Make what was appended to `data` the next block."""
        self.data.flush()
        self._start, self._end = self._end, self.data.tell()
        self._unlisted.append(Block(made_from, self._end, texts))
        if time.monotonic() - self._saved >= SECONDS:
            self.save()

    def save(self) -> None:
        """List the new blocks, after their bytes have reached the disk."""
        if self._unlisted:
            os.fsync(self.data.fileno())
            self._listing.write("".join(map(_LINE.format, self._unlisted)).encode())
            self._listing.flush()
            os.fsync(self._listing.fileno())
            self._count += len(self._unlisted)
            self._unlisted.clear()
        self._saved = time.monotonic()


@contextmanager
def open_unfinished(out: Path, identity: str | None) -> Iterator[Unfinished]:
    """The blocks that an earlier call with this `identity` left for `out`; what is new is kept if the caller stops with
    an error.

    Without an identity nothing can be known again, and nothing is kept.

    Raises:
        ArtifactError: another process is at the same job.
        DiskError: no room.
    """
    folder = out.with_name(f".{out.name}.{identity or uuid.uuid4().hex[:12]}.unfinished")
    with disk_errors(out):
        with _locked(folder / LIST, out) as listing, opened(folder / DATA) as data:
            job = Unfinished(folder, listing, data)
            try:
                yield job
            finally:
                with suppress(OSError):  # a full disk: what is listed is listed
                    job.save()
                if job.empty or identity is None:
                    shutil.rmtree(folder, ignore_errors=True)


def finish(job: Unfinished, whole: Path, out: Path) -> None:
    """Make `whole`, a file in the job's folder, `out`; remove that folder, and those that other jobs left for `out`."""
    job.cut()
    with whole.open("rb") as handle:
        os.fsync(handle.fileno())
    whole.replace(out)
    shutil.rmtree(job.folder, ignore_errors=True)
    for folder in left_behind(out):
        with suppress(ArtifactError), _locked(folder / LIST, out):
            shutil.rmtree(folder, ignore_errors=True)


def left_behind(out: Path) -> list[Path]:
    """Folders of all unfinished jobs for `out`."""
    return sorted(out.parent.glob(f".{escape(out.name)}.*.unfinished"))


def _listed(content: bytes, size: int) -> Iterator[Block]:
    for start in range(0, len(content) - _WIDTH + 1, _WIDTH):
        made_from, end, texts = content[start : start + _WIDTH].decode("ascii").split()
        if int(end) > size:  # not what was left: a file that was cut by someone else
            return
        yield Block(made_from, int(end), int(texts))


def _locked(path: Path, out: Path) -> AbstractContextManager[IO[bytes]]:
    def busy() -> None:
        raise ArtifactError(f"{out}: another process is writing it", "wait for it, or choose another name")

    return locked(path, busy)
