"""The documents' vectors as the page keeps them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emb.quantize.vectors.binary import BinaryCodec
from emb.quantize.vectors.ranges import steps
from emb.quantize.vectors.scalar import Int8Codec
from emb.similarity import Vectors

CODECS = ("int8", "binary")


@dataclass(frozen=True)
class Stored:
    """Codes `(documents, bytes)`, the codec that made them, and the floats that the page needs to read them."""

    codec: Int8Codec | BinaryCodec
    codes: Vectors
    floats: Vectors

    @property
    def bits(self) -> int | None:
        """Of a code of bits."""
        return len(self.codec.atoms) if isinstance(self.codec, BinaryCodec) else None

    def content(self) -> bytes:
        """The file: float32 first, which must begin at a multiple of four, then codes."""
        return self.floats.astype("<f4").tobytes() + np.ascontiguousarray(self.codes).tobytes()


def stored(vectors: Vectors, codec: str) -> Stored:
    """Documents' `vectors` `(documents, dim)` as int8 or as bits.

    Bits are those of the rotation that fits these documents best (ITQ): plain signs of a rotated teacher's vectors
    lose a third of what is found.
    """
    if codec == "int8":
        fitted = Int8Codec.fit(vectors)
        return Stored(fitted, fitted.encode(vectors), np.concatenate(steps(fitted.ranges)))
    bits = BinaryCodec.fit(vectors, rotation="itq")
    return Stored(bits, bits.encode(vectors), bits.atoms.reshape(-1))
