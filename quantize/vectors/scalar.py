"""Codecs that store every dimension on its own: floats as they are, or int8 and int4 by calibrated ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from emb.quantize.vectors.base import Codec, Codes
from emb.quantize.vectors.ranges import calibrate, dequantize_int4, dequantize_int8, quantize_int4, quantize_int8
from emb.similarity import Vectors

# Shares of the values that int4 may leave beyond its range; with 15 steps, wide ranges cost more than clipping.
OUTSIDE = (0.0, 0.0005, 0.002, 0.005, 0.01, 0.02, 0.05)


class FloatCodec(Codec):
    """Floats of 4 or 2 bytes: the reference, and what rescoring reads from disk."""

    dtype: ClassVar[type[np.floating[Any]]]

    def __init__(self, dim: int) -> None:
        self.dim = dim

    @classmethod
    def fit(cls, vectors: Vectors) -> Self:
        """Only the dim is taken from `vectors`."""
        return cls(vectors.shape[1])

    @classmethod
    def restore(cls, dim: int, arrays: Mapping[str, Vectors], settings: Mapping[str, Any]) -> Self:
        """See `Codec`."""
        return cls(dim)

    @property
    def bytes_per_vector(self) -> int:
        """4 or 2 a dimension."""
        return self.dim * np.dtype(self.dtype).itemsize

    def arrays(self) -> dict[str, Vectors]:
        """None."""
        return {}

    def decode(self, codes: Codes) -> Vectors:
        """As float32."""
        return codes.astype(np.float32, copy=False)

    def _encode(self, vectors: Vectors) -> Codes:
        return vectors.astype(self.dtype)


class Float32Codec(FloatCodec):
    """Vectors as they are."""

    kind = "float32"
    dtype = np.float32


class Float16Codec(FloatCodec):
    """Half precision; unit vectors lose about three decimals of nothing that search would see."""

    kind = "float16"
    dtype = np.float16


@dataclass
class _Calibrated(Codec):
    """Levels between each dimension's limits `ranges` `(2, dim)`."""

    ranges: Vectors

    def __post_init__(self) -> None:
        self.dim = self.ranges.shape[1]

    @classmethod
    def restore(cls, dim: int, arrays: Mapping[str, Vectors], settings: Mapping[str, Any]) -> Self:
        """See `Codec`."""
        return cls(arrays["ranges"])

    def arrays(self) -> dict[str, Vectors]:
        """The ranges."""
        return {"ranges": self.ranges}


class Int8Codec(_Calibrated):
    """256 levels; ranges are the smallest and largest training value of each dimension."""

    kind = "int8"

    @classmethod
    def fit(cls, vectors: Vectors) -> Self:
        """Ranges of training vectors `(texts, dim)`."""
        return cls(calibrate(vectors))

    @property
    def bytes_per_vector(self) -> int:
        """1 a dimension."""
        return self.dim

    def decode(self, codes: Codes) -> Vectors:
        """To within half a step."""
        return dequantize_int8(codes, self.ranges)

    def _encode(self, vectors: Vectors) -> Codes:
        return quantize_int8(vectors, self.ranges)


class Int4Codec(_Calibrated):
    """16 levels, two dimensions in a byte."""

    kind = "int4"

    @classmethod
    def fit(cls, vectors: Vectors) -> Self:
        """Ranges of training vectors `(texts, dim)` that leave as many values outside as gives the least squared error
        on them.
        """
        candidates = [cls(calibrate(vectors, outside)) for outside in OUTSIDE]
        return min(candidates, key=lambda codec: float(np.square(codec.decode(codec.encode(vectors)) - vectors).sum()))

    @property
    def bytes_per_vector(self) -> int:
        """1 for two dimensions."""
        return (self.dim + 1) // 2

    def decode(self, codes: Codes) -> Vectors:
        """To within half a step, inside the ranges."""
        return dequantize_int4(codes, self.ranges)

    def _encode(self, vectors: Vectors) -> Codes:
        return quantize_int4(vectors, self.ranges)
