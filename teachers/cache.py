"""Teacher vectors on disk, computed once: content-addressed, memory-mapped, crash-safe.

A cache folder belongs to one teacher (its fingerprint is in the name) and holds shards. A shard is one `.npy` file
of records (key, vector), named by the hash of its content and put in place by a rename: it is either absent or
whole, two processes can never write the same name with different content, and a damaged file is known by its name.
A row's key hashes the prompt and the text.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import CacheError
from emb.files import atomic_path
from emb.locks import locked
from emb.progress import note, warn
from emb.similarity import Vectors

_KEY_BYTES = 16


def row_key(prompt: str, text: str) -> bytes:
    """The key of one text behind one prompt."""
    return hashlib.blake2b(f"{prompt}\0{text}".encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


@dataclass(frozen=True)
class TeacherEmbeddings:
    """Cached targets of a list of texts, `(texts, dim)`; rows are read from disk when taken."""

    shards: list[np.ndarray[Any, Any]]
    places: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.shards[0]["vector"].shape[1])

    def take(self, indices: Iterable[int]) -> Vectors:
        """The vectors of the given texts as float32 `(len(indices), dim)`."""
        rows = [self.shards[shard]["vector"][row] for shard, row in self.places[list(indices)]]
        return np.stack(rows).astype(np.float32)


def in_memory(vectors: Vectors) -> TeacherEmbeddings:
    """`vectors` `(texts, dim)` as if they came from a cache."""
    shard = np.zeros(len(vectors), [("vector", "<f4", (vectors.shape[1],))])
    shard["vector"] = vectors
    rows = np.arange(len(vectors))
    return TeacherEmbeddings([shard], np.stack([np.zeros_like(rows), rows], axis=1))


class TeacherCache:
    """The shards of one teacher below `folder`.

    Raises:
        CacheError: the folder holds vectors of another width.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self.dim = folder, dim
        self.record = np.dtype([("key", f"V{_KEY_BYTES}"), ("vector", "<f2", (dim,))])
        self.shards: list[np.ndarray[Any, Any]] = []
        self.index: dict[bytes, tuple[int, int]] = {}
        self._names: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that have appeared since the last look."""
        for path in sorted(self.folder.glob("*.npy")):
            if path.name not in self._names:
                self._add(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this cache for writing; a second process waits, then finds the work done."""
        with locked(self.folder / ".lock", lambda: note(f"waiting for another process that fills {self.folder}")):
            self.refresh()
            yield

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Indices of the first occurrence of each key that has no vector yet."""
        first: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in self.index:
                first.setdefault(key, position)
        return list(first.values())

    def append(self, keys: Sequence[bytes], vectors: np.ndarray[Any, Any]) -> None:
        """Write one shard and take it in."""
        records = np.empty(len(keys), self.record)
        records["key"] = np.frombuffer(b"".join(keys), f"V{_KEY_BYTES}")
        records["vector"] = vectors
        buffer = io.BytesIO()
        np.save(buffer, records, allow_pickle=False)
        path = self.folder / f"{_digest(buffer.getbuffer())}.npy"
        with atomic_path(path) as partial:
            partial.write_bytes(buffer.getbuffer())
        self._add(path)

    def view(self, keys: Sequence[bytes]) -> TeacherEmbeddings:
        """The targets of texts that all have a vector, in the order of `keys`."""
        return TeacherEmbeddings(self.shards, np.asarray([self.index[key] for key in keys], np.int64))

    def _add(self, path: Path) -> None:
        self._names.add(path.name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return  # another process found it damaged in this moment
        if _digest(content) != path.stem:
            path.rename(path.with_suffix(".damaged"))
            self._names.discard(path.name)  # written again, it has this name again
            warn(f"{path} is damaged: set aside as .damaged; its texts are encoded again")
            return
        records = np.load(path, mmap_mode="r", allow_pickle=False)
        if records.dtype != self.record:
            found, wanted = (
                dtype["vector"].shape if "vector" in (dtype.names or ()) else dtype
                for dtype in (records.dtype, self.record)
            )
            raise CacheError(
                f"{path}: vectors of shape {found}, expected {wanted}",
                f"move {self.folder} out of the way; its texts are encoded again",
            )
        shard = len(self.shards)
        self.shards.append(records)
        self.index.update((key.tobytes(), (shard, row)) for row, key in enumerate(records["key"]))


def _digest(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=_KEY_BYTES).hexdigest()
