"""Eight bits a dimension, in steps of each vector's own: what puts candidates in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from emb.quantize.vectors.base import Codec, Codes
from emb.quantize.vectors.binary import random_rotation
from emb.similarity import Vectors, dots

_LEVELS = 127  # on each side of 0
_BLOCK = 8192  # codes scored at a time


@dataclass
class Lvq8Codec(Codec):
    """Locally-adaptive quantisation (LVQ, Aguerrebere et al. 2023, "Similarity search in the blink of an eye with
    compressed indices"), behind a random rotation and with the scale of RaBitQ (Gao and Long 2024).

    The rotation spreads what one dimension has in excess over all of them, so that the largest component, which sets
    the step, is near the others. The scale of a code makes its product with the very vector that it stands for exact.
    Nothing is learnt from training vectors: later ones cannot lie outside of anything.
    """

    rotation: Vectors

    kind = "lvq8"

    def __post_init__(self) -> None:
        self.dim = len(self.rotation)

    @classmethod
    def fit(cls, vectors: Vectors, *, seed: int = 0) -> Self:
        """Only the dim is taken from `vectors`; `seed` is that of the rotation."""
        return cls(random_rotation(vectors.shape[1], vectors.shape[1], seed))

    @classmethod
    def restore(cls, dim: int, arrays: Mapping[str, Vectors], settings: Mapping[str, Any]) -> Self:
        """See `Codec`."""
        return cls(arrays["rotation"])

    @property
    def bytes_per_vector(self) -> int:
        """1 a dimension, and 4 of the scale."""
        return self.dim + 4

    def arrays(self) -> dict[str, Vectors]:
        """The rotation `(dim, dim)`."""
        return {"rotation": self.rotation}

    def decode(self, codes: Codes) -> Vectors:
        """To within half a step of each vector's own."""
        levels, scales = self._parts(codes)
        return dots(levels * scales, self._exact.T)

    def scores(self, queries: Vectors, codes: Codes) -> Vectors:
        """See `Codec`; the queries are rotated, not what the codes stand for."""
        turned = dots(self._fitting(queries), self._exact)
        blocks = [self._block(turned, codes[start : start + _BLOCK]) for start in range(0, len(codes), _BLOCK)]
        return np.concatenate(blocks, axis=1) if blocks else np.empty((len(turned), 0), np.float32)

    @cached_property
    def _exact(self) -> Vectors:
        """The rotation as `dots` computes: turned into it for each query, it would take longer than the query."""
        return self.rotation.astype(np.float64)

    def _block(self, turned: Vectors, codes: Codes) -> Vectors:
        levels, scales = self._parts(codes)
        return np.asarray(dots(turned, levels) * scales.T)

    def _parts(self, codes: Codes) -> tuple[Vectors, Vectors]:
        """Levels `(texts, dim)` and scales `(texts, 1)`, both float32."""
        codes = np.ascontiguousarray(codes)
        return codes[:, : self.dim].view(np.int8).astype(np.float32), codes[:, self.dim :].copy().view(np.float32)

    def _encode(self, vectors: Vectors) -> Codes:
        turned = dots(vectors, self._exact)
        largest = np.abs(turned).max(1, keepdims=True)
        shares = np.divide(turned, largest, out=np.zeros_like(turned), where=largest > 0)
        levels = np.round(_LEVELS * shares)
        along = np.maximum((levels * shares).sum(1, keepdims=True), 1)  # at least that of the largest component
        scales = (largest * np.square(shares).sum(1, keepdims=True) / along).astype(np.float32)
        return np.concatenate([levels.astype(np.int8).view(np.uint8), scales.view(np.uint8)], axis=1)
