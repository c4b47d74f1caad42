"""Stored vectors in fewer bytes: int8 and int4 by calibrated ranges, and one bit per dimension.

The int8 scale is that of sentence-transformers' `quantize_embeddings`: 255 steps between each dimension's smallest
and largest value over calibration texts. Here values are rounded, not cut off, and those beyond the range are
clipped instead of wrapping round. int4 has 15 steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.errors import UsageError
from emb.similarity import Vectors

BINARY = {"threshold": 0, "packing": "msb"}  # a bit is 1 above 0; the first dimension is a byte's highest bit
INT8_LEVELS, INT4_LEVELS = 256, 16
_FLAT = 1e-6  # a dimension that never moved still needs a step


def calibrate(vectors: Vectors, outside: float = 0.0) -> Vectors:
    """Range of each dimension `(2, dim)` float32 over `(texts, dim)`: smallest and largest value, or with a share
    `outside` left beyond them, half on each side.
    """
    ranges = (
        np.quantile(vectors, [outside / 2, 1 - outside / 2], axis=0)
        if outside
        else np.stack([vectors.min(0), vectors.max(0)])
    )
    ranges = ranges.astype(np.float32)
    ranges[1] = np.maximum(ranges[1], ranges[0] + _FLAT)
    return ranges


def steps(ranges: Any, levels: int = INT8_LEVELS) -> tuple[Vectors, Vectors]:
    """Where the scale of each dimension begins, and its step; both `(dim,)` float32."""
    low, high = np.asarray(ranges, np.float32)
    return low, (high - low) / np.float32(levels - 1)


def quantize_int8(vectors: Vectors, ranges: Any) -> Vectors:
    """Float vectors `(texts, dim)` as int8 of the same shape; `ranges` `(2, dim)` come from the manifest.

    Raises:
        UsageError: ranges of another dim.
    """
    low, step = _fitting(vectors, ranges)
    return np.clip(np.round((vectors - low) / step) - 128, -128, 127).astype(np.int8)


def dequantize_int8(vectors: Vectors, ranges: Any) -> Vectors:
    """int8 vectors `(texts, dim)` back as float32, to within half a step."""
    low, step = _fitting(vectors, ranges)
    return (vectors.astype(np.float32) + 128) * step + low


def quantize_int4(vectors: Vectors, ranges: Any) -> Vectors:
    """Float vectors `(texts, dim)` as 16 levels, two dimensions per byte `(texts, ceil(dim / 2))` uint8; the first is
    the high half.

    Raises:
        UsageError: ranges of another dim.
    """
    low, step = _fitting(vectors, ranges, INT4_LEVELS)
    levels = np.clip(np.round((vectors - low) / step), 0, INT4_LEVELS - 1).astype(np.uint8)
    levels = np.pad(levels, ((0, 0), (0, levels.shape[1] % 2)))
    return levels[:, ::2] << 4 | levels[:, 1::2]


def dequantize_int4(packed: Vectors, ranges: Any) -> Vectors:
    """Packed int4 `(texts, ceil(dim / 2))` back as float32 `(texts, dim)`, to within half a step."""
    levels = np.stack([packed >> 4, packed & 15], axis=2).reshape(len(packed), -1)
    levels = levels[:, : np.shape(ranges)[1]]
    low, step = _fitting(levels, ranges, INT4_LEVELS)
    return levels.astype(np.float32) * step + low


def binarize(vectors: Vectors) -> Vectors:
    """Float vectors `(texts, dim)` as bits `(texts, dim / 8)` uint8: numpy's packbits of `vectors > 0`."""
    return np.packbits(np.asarray(vectors) > 0, axis=1)


def unpack_binary(packed: Vectors) -> Vectors:
    """Bits `(texts, dim)` uint8, 0 or 1, of packed vectors `(texts, dim / 8)`."""
    return np.unpackbits(packed, axis=1)


def _fitting(vectors: Vectors, ranges: Any, levels: int = INT8_LEVELS) -> tuple[Vectors, Vectors]:
    low, step = steps(ranges, levels)
    if vectors.shape[1] != len(low):
        raise UsageError(
            f"vectors have {vectors.shape[1]} dims, the ranges {len(low)}",
            "use the calibration of the artifact that made the vectors",
        )
    return low, step


def as_floats(vectors: Vectors, vector_dtype: str, ranges: Any, dim: int) -> Vectors:
    """Vectors `(texts, dim)` float32 of what a file returns as `vector_dtype`; of bits, -1 and 1. int8 counts in
    `ranges` `(2, dim)`.
    """
    if vector_dtype == "int8":
        return dequantize_int8(vectors, ranges)
    return 2 * unpack_binary(vectors)[:, :dim].astype("float32") - 1 if vector_dtype == "ubinary" else vectors
