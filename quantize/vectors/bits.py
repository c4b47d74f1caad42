"""Codes of bits that decode linearly, scored through lookup tables.

A vector is an `offset` plus, for each bit, its `atom` added or taken away. A dot product with a query is then one
number per bit, and eight of them have 256 possible sums: a table per byte of the code, looked up and added. It is
the table of product quantisation (Jégou et al. 2011, section III) with one byte as the sub-quantiser, and gives the
very dot product with the decoded vector.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from emb.quantize.vectors.base import Codec, Codes
from emb.similarity import Vectors, dots

# (8, 256): for each byte, +1 or -1 per bit, the highest bit first as numpy packs them.
_SIGNS = 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[None], axis=0).astype(np.float32) - 1
_TABLES_AT_ONCE = 64  # queries whose tables are in memory together: 96 bytes × 256 sums × 64 × 4 bytes = 6 MB


def signs(codes: Codes, bits: int) -> Vectors:
    """-1 and 1, float32 `(texts, bits)`, of packed `codes` `(texts, ceil(bits / 8))`."""
    return 2 * np.unpackbits(codes, axis=1, count=bits).astype(np.float32) - 1


def tables(weights: Vectors) -> Vectors:
    """What each byte adds to a score, `(bytes, 256, queries)`, from what each bit adds, `weights` `(queries, bits)`."""
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 8))).reshape(len(weights), -1, 8)
    return np.ascontiguousarray((padded @ _SIGNS).transpose(1, 2, 0), dtype=np.float32)


def looked_up(table: Vectors, codes: Codes) -> Vectors:
    """Scores `(queries, texts)` of `codes` `(texts, bytes)`: the sum of one entry per byte of `table` `(bytes, 256,
    queries)`.
    """
    found = np.zeros((len(codes), table.shape[2]), np.float32)
    for sums, column in zip(table, codes.T, strict=True):
        found += sums[column]
    return found.T


class BitCodec(Codec):
    """A codec whose codes are packed bits, `bits` of them, each of which adds or takes away one of `atoms` `(bits,
    dim)`.
    """

    @property
    @abstractmethod
    def atoms(self) -> Vectors:
        """What each bit adds where it is 1 and takes away where it is 0, `(bits, dim)` float32."""

    @property
    @abstractmethod
    def offset(self) -> Vectors:
        """What every vector begins with, `(dim,)` float32."""

    @property
    def bytes_per_vector(self) -> int:
        """Eight bits a byte."""
        return (len(self.atoms) + 7) // 8

    def decode(self, codes: Codes) -> Vectors:
        """See `Codec`."""
        return dots(signs(codes, len(self.atoms)), self.atoms.T) + self.offset

    def scores(self, queries: Vectors, codes: Codes) -> Vectors:
        """See `Codec`; through lookup tables."""
        queries = self._fitting(queries)
        weights, common = dots(queries, self.atoms), dots(queries, self.offset[None])[:, 0]
        parts = [
            looked_up(tables(weights[start : start + _TABLES_AT_ONCE]), codes)
            for start in range(0, len(queries), _TABLES_AT_ONCE)
        ]
        return np.concatenate(parts) + common[:, None] if parts else np.empty((0, len(codes)), np.float32)
