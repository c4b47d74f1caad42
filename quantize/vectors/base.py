"""What a vector codec is: floats to a few bytes and back, and scores against the bytes."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from emb.errors import UsageError
from emb.similarity import Vectors, dots

Codes = np.ndarray[Any, np.dtype[Any]]
_BLOCK = 8192  # codes decoded at a time, so that scoring needs little more memory than the codes


class Codec(ABC):
    """Vectors `(texts, dim)` to codes `(texts, width)`, one row of bytes each, and back.

    Fitted once on training vectors; what was fitted is in `arrays` and `settings`, which is all that is stored.
    Needs numpy only (product quantisation: faiss).

    Attributes:
        kind: what it is called on the command line and on disk.
        dim: of the vectors it takes.
    """

    kind: ClassVar[str]
    dim: int

    @classmethod
    @abstractmethod
    def fit(cls, vectors: Vectors) -> Self:
        """The codec for vectors like the training vectors `(texts, dim)` float32."""

    @property
    @abstractmethod
    def bytes_per_vector(self) -> int:
        """Size of one code."""

    @property
    def name(self) -> str:
        """The kind and what distinguishes it from others of its kind, for tables."""
        return self.kind

    @property
    def fingerprint(self) -> str:
        """The sha256 of what was fitted: two codecs with the same one give the same codes."""
        state = hashlib.sha256(json.dumps([self.kind, self.dim, self.settings()], sort_keys=True).encode())
        for name, array in sorted(self.arrays().items()):
            state.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return state.hexdigest()

    @abstractmethod
    def arrays(self) -> dict[str, Vectors]:
        """The fitted arrays by name."""

    def settings(self) -> dict[str, Any]:
        """Other facts that `restore` needs, in the types of JSON."""
        return {}

    @classmethod
    @abstractmethod
    def restore(cls, dim: int, arrays: Mapping[str, Vectors], settings: Mapping[str, Any]) -> Self:
        """The codec that gave `arrays` and `settings`."""

    def encode(self, vectors: Vectors) -> Codes:
        """Codes `(texts, width)` of float vectors `(texts, dim)`.

        Raises:
            UsageError: vectors of another dim.
        """
        return self._encode(self._fitting(vectors))

    @abstractmethod
    def decode(self, codes: Codes) -> Vectors:
        """The float32 vectors `(texts, dim)` that `codes` stand for."""

    def scores(self, queries: Vectors, codes: Codes) -> Vectors:
        """Dot products `(queries, texts)` of float `queries` `(queries, dim)` with what `codes` stand for.

        Raises:
            UsageError: queries of another dim.
        """
        queries = self._fitting(queries)
        blocks = [dots(queries, self.decode(codes[start : start + _BLOCK])) for start in range(0, len(codes), _BLOCK)]
        return np.concatenate(blocks, axis=1) if blocks else np.empty((len(queries), 0), np.float32)

    def symmetric(self, query_codes: Codes, codes: Codes) -> Vectors:
        """Dot products `(queries, texts)` where the queries are codes too, of this codec or of one it is compatible
        with.
        """
        return self.scores(self.decode(query_codes), codes)

    @abstractmethod
    def _encode(self, vectors: Vectors) -> Codes: ...

    def _fitting(self, vectors: Vectors) -> Vectors:
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            message = f"vectors of shape {vectors.shape}, the {self.kind} codec was fitted to {self.dim} dims"
            raise UsageError(message, f"give vectors of {self.dim} dims, or fit a codec on vectors like these")
        return vectors.astype(np.float32, copy=False)
