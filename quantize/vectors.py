"""Stored vectors in fewer bytes: int8 by calibrated ranges, and one bit per dimension.

The int8 scale is that of sentence-transformers' `quantize_embeddings`: 255 steps between each
dimension's smallest and largest value over calibration texts. Here values are rounded, not cut
off, and those beyond the range are clipped instead of wrapping round.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.errors import UsageError

Vectors = np.ndarray[Any, np.dtype[Any]]
BINARY = {"threshold": 0, "packing": "msb"}  # a bit is 1 above 0; the first dimension is a byte's highest bit
_FLAT = 1e-6  # a dimension that never moved still needs a step


def calibrate(vectors: Vectors) -> Vectors:
    """Smallest and largest value of each dimension `(2, dim)` float32, over `(texts, dim)`."""
    ranges = np.stack([vectors.min(0), vectors.max(0)]).astype(np.float32)
    ranges[1] = np.maximum(ranges[1], ranges[0] + _FLAT)
    return ranges


def steps(ranges: Any) -> tuple[Vectors, Vectors]:
    """Where the int8 scale of each dimension begins, and its step; both `(dim,)` float32."""
    low, high = np.asarray(ranges, np.float32)
    return low, (high - low) / np.float32(255)


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


def binarize(vectors: Vectors) -> Vectors:
    """Float vectors `(texts, dim)` as bits `(texts, dim / 8)` uint8: numpy's packbits of `vectors > 0`."""
    return np.packbits(np.asarray(vectors) > 0, axis=1)


def unpack_binary(packed: Vectors) -> Vectors:
    """Bits `(texts, dim)` uint8, 0 or 1, of packed vectors `(texts, dim / 8)`."""
    return np.unpackbits(packed, axis=1)


def _fitting(vectors: Vectors, ranges: Any) -> tuple[Vectors, Vectors]:
    low, step = steps(ranges)
    if vectors.shape[1] != len(low):
        raise UsageError(f"vectors have {vectors.shape[1]} dims, the ranges {len(low)}", "use the calibration of the artifact that made the vectors")
    return low, step
