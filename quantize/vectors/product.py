"""Product quantisation through faiss: the vector in pieces, each the nearest of 256 centroids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from emb.errors import UsageError, needs_extra
from emb.quantize.vectors.base import Codec, Codes
from emb.similarity import Vectors

_CENTROIDS = 256  # one byte


@dataclass
class ProductCodec(Codec):
    """One byte for each of `pieces` pieces of a vector (Jégou et al. 2011, Product Quantization for Nearest Neighbor
    Search).

    Attributes:
        centroids: `(pieces, 256, dim / pieces)` float32.
    """

    centroids: Vectors

    kind = "pq"

    def __post_init__(self) -> None:
        self.dim = self.centroids.shape[0] * self.centroids.shape[2]

    @classmethod
    def fit(cls, vectors: Vectors, *, pieces: int | None = None) -> Self:
        """Fit to training vectors `(texts, dim)`; `pieces` is the size of a code in bytes, by default one for eight
        dims.

        Raises:
            UsageError: `pieces` does not divide the dims, or there are fewer vectors than centroids.
            MissingExtra: faiss is not installed.
        """
        dim = vectors.shape[1]
        pieces = pieces or max(1, dim // 8)
        if dim % pieces:
            raise UsageError(
                f"{dim} dims cannot be cut into {pieces} equal pieces", "choose --pieces that divides the dims"
            )
        if len(vectors) < _CENTROIDS:
            raise UsageError(
                f"{len(vectors)} vectors for {_CENTROIDS} centroids", "fit on more vectors, at least ten thousand"
            )
        quantizer = _faiss().ProductQuantizer(dim, pieces, 8)
        quantizer.train(np.ascontiguousarray(vectors, np.float32))
        return cls(_faiss().vector_to_array(quantizer.centroids).reshape(pieces, _CENTROIDS, -1))

    @classmethod
    def restore(cls, dim: int, arrays: Mapping[str, Vectors], settings: Mapping[str, Any]) -> Self:
        """See `Codec`."""
        return cls(arrays["centroids"])

    @property
    def bytes_per_vector(self) -> int:
        """One a piece."""
        return len(self.centroids)

    @property
    def name(self) -> str:
        """The number of pieces."""
        return f"pq {len(self.centroids)} pieces"

    def arrays(self) -> dict[str, Vectors]:
        """The centroids."""
        return {"centroids": self.centroids}

    def decode(self, codes: Codes) -> Vectors:
        """See `Codec`."""
        return np.asarray(self._quantizer.decode(np.ascontiguousarray(codes)))

    def _encode(self, vectors: Vectors) -> Codes:
        return np.asarray(self._quantizer.compute_codes(np.ascontiguousarray(vectors)))

    @cached_property
    def _quantizer(self) -> Any:
        faiss = _faiss()
        quantizer = faiss.ProductQuantizer(self.dim, len(self.centroids), 8)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.centroids, np.float32).ravel(), quantizer.centroids)
        return quantizer


def _faiss() -> Any:
    with needs_extra():
        import faiss
    return faiss
