"""From an encoder's vectors to those of an index: rotated, cut, of length 1, and compared by one measure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from emb.errors import UsageError
from emb.similarity import Vectors, unit

DIRECTIONS_ONLY = ("binary",)  # codecs that forget how long a vector is


@dataclass(frozen=True)
class Space:
    """How vectors of an encoder become vectors of the index; both sides go the same way.

    Attributes:
        measure: "dot", "euclidean" or "manhattan", higher is closer; cosines are dot products of length 1.
        length_one: whether vectors are scaled to length 1, after a cut too.
        dim: kept of them.
        rotation: `(encoder's dim, encoder's dim)` to multiply by first, or None.
    """

    measure: str
    length_one: bool
    dim: int
    rotation: Vectors | None = None

    @classmethod
    def of(cls, similarity: str, normalize: bool, dim: int) -> Space:
        """The space for an encoder's own similarity."""
        measure = "dot" if similarity == "cosine" else similarity
        return cls(measure, normalize or similarity == "cosine", dim)

    def turned(self, rotation: Vectors | None) -> Space:
        """The same behind a rotation."""
        return replace(self, rotation=rotation)

    def whole(self, dim: int) -> Space:
        """The same without any cut, for vectors whose rotation is not known yet."""
        return replace(self, dim=dim)

    def apply(self, vectors: Vectors) -> Vectors:
        """Vectors `(texts, dim)` float32 of an encoder's `(texts, encoder's dim)`."""
        turned = vectors if self.rotation is None else vectors @ self.rotation.T
        cut = np.ascontiguousarray(turned[:, : self.dim], np.float32)
        return unit(cut) if self.length_one else cut

    def query(self, vector: Vectors, most: int) -> Vectors:
        """A query `(dim,)` of an encoder among these vectors, whose own encoder has `most` dims.

        Raises:
            UsageError: of fewer dims than are compared or of more than there are, or not finite.
        """
        query = np.asarray(vector, np.float32)
        least = self.dim if self.rotation is None else most
        if query.ndim != 1 or not least <= len(query) <= most:
            raise UsageError(
                f"a query of shape {query.shape}, the index has {self.dim} dims, its documents' encoder {most}",
                "give a vector of the encoder's own dim",
            )
        if not np.isfinite(query).all():
            raise UsageError("the query's vector holds NaN or infinity", "encode the query again")
        return np.asarray(self.apply(query[None])[0])

    def refuse(self, codec: str, rescore: str | None, rotate: bool, factory: str | None) -> None:
        """Refuse what this measure does not allow.

        Raises:
            UsageError: the encoder's similarity is named.
        """
        if not self.length_one and codec in DIRECTIONS_ONLY:
            raise UsageError(
                f"codec {codec}: keeps directions alone, and this encoder's {self.measure} similarity needs lengths",
                "choose int8, float16 or float32",
            )
        if self.measure == "manhattan" and (codec != "float32" or rescore or rotate or factory):
            raise UsageError(
                "this encoder's vectors are compared by manhattan distance, which a rotation changes and faiss takes"
                " of float32 alone",
                "leave out --rotate, --rescore and --factory, and take the codec float32",
            )
