"""Floats found through fewer bytes, whose error is known: a search finds what all floats would have found.

Of the dims that hold nearly all of the vectors, a byte each is in memory; of the others the length alone, rounded up.
A dot product of the lengths is never less than that of what they are lengths of (Cauchy-Schwarz), so one more dim makes
a score that no row exceeds, but for what the bytes lose, which is measured. The last of the rows with the highest ones
says what no other row can exceed; whoever asks looks again, at all floats, where that is not enough. A query reads an
eighth to a quarter of the floats' bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.quantize.vectors.base import Codes
from emb.search.index.candidates import Candidates, Found, Mask, Rows, faiss, only
from emb.similarity import Vectors

_HELD = 0.99  # of the squared lengths, by dims with a byte of their own: docs/log.md has the figures
_LEVELS = 127  # of a byte, on each side of 0
_BLOCK = 1024  # rows at a time: they stay in the cache of a core
_WIDE = 16  # dims that faiss takes at once
_ROUNDING = 1e-5  # of float32 sums, vectors and queries being of length 1


class Bounded(Candidates):
    """Dot products of vectors of length 1 that lie on the disk."""

    whole = True

    def __init__(self, vectors: Vectors) -> None:
        """`vectors` `(rows, dim)` float32 may be memory-mapped."""
        self.vectors = np.asarray(vectors)
        self.dims, self.rest = _split(self.vectors)
        codes, self.steps, self.lost = _coded(self.vectors, self.dims, self.rest)
        self.index, self.size = _index(codes), codes.nbytes

    @property
    def closer(self) -> Candidates:
        """See `Candidates`."""
        return Floats(self.vectors)

    def find(self, query: Vectors, depth: int, allowed: Mask) -> Found:
        """See `Candidates`."""
        left = int(np.count_nonzero(allowed))
        if not left:
            return Found(np.empty(0, np.int64), -np.inf)
        count = min(depth, left)
        bounds, rows = self.index.search(self._asked(query), count, params=only(allowed, left))
        return Found(rows[0], -np.inf if count == left else float(bounds[0, -1]) + self.lost + _ROUNDING)

    def _asked(self, query: Vectors) -> Vectors:
        asked = np.zeros((1, len(self.steps)), np.float32)
        rest = query[self.rest]
        asked[0, : len(self.dims)] = query[self.dims]
        asked[0, len(self.dims)] = np.sqrt(rest @ rest)
        return asked * self.steps


class Floats(Candidates):
    """Dot products of all vectors where they lie, which need not be in memory."""

    whole = True
    size = 0

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def find(self, query: Vectors, depth: int, allowed: Mask) -> Found:
        """See `Candidates`."""
        left = np.flatnonzero(allowed)
        if depth >= len(left):
            return Found(left, -np.inf)
        scores = np.where(allowed, self.vectors @ query, -np.inf)
        rows = np.argpartition(-scores, depth)[:depth]
        return Found(rows, float(scores[rows].min()))


def _split(vectors: Vectors) -> tuple[Rows, Rows]:
    """The dims that hold most, and the others; with the others' length the first make whole steps of `_WIDE`."""
    energy = np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), _BLOCK):
        energy += np.square(vectors[start : start + _BLOCK]).sum(axis=0)
    order = np.argsort(-energy, kind="stable")
    held = np.cumsum(energy[order])
    needed = int(np.searchsorted(held, _HELD * held[-1])) + 1
    count = -(-(needed + 1) // _WIDE) * _WIDE - 1
    return np.sort(order[:count]), np.sort(order[count:])


def _coded(vectors: Vectors, dims: Rows, rest: Rows) -> tuple[Codes, Vectors, float]:
    """Codes `(rows, width)`, of which 128 is 0; the step of each column; and the length that coding took at most."""
    width = -(-(len(dims) + 1) // _WIDE) * _WIDE
    columns = np.zeros((min(_BLOCK, len(vectors)), width), np.float32)
    blocks = [vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK)]
    largest = np.zeros(width, np.float32)
    for block in blocks:
        np.maximum(largest, np.abs(_columns(block, dims, rest, columns)).max(axis=0), out=largest)
    steps = np.where(largest > 0, largest, 1) / np.float32(_LEVELS)
    codes, lost = np.empty((len(vectors), width), np.uint8), 0.0
    for number, block in enumerate(blocks):
        exact = _columns(block, dims, rest, columns)
        levels = np.rint(exact / steps)
        levels[:, len(dims)] = np.ceil(exact[:, len(dims)] / steps[len(dims)])
        codes[number * _BLOCK :][: len(block)] = levels + (_LEVELS + 1)
        errors = (exact - levels * steps)[:, : len(dims)]
        lost = max(lost, float(np.square(errors).sum(axis=1).max()))
    return codes, steps, lost**0.5


def _columns(block: Vectors, dims: Rows, rest: Rows, columns: Vectors) -> Vectors:
    """The rows' `dims`, and behind them the length of the `rest`."""
    filled = columns[: len(block)]
    filled[:, : len(dims)] = block[:, dims]
    filled[:, len(dims)] = np.sqrt(np.square(block[:, rest]).sum(axis=1))
    return filled


def _index(codes: Codes) -> Any:
    lib = faiss()
    rows, width = codes.shape
    index = lib.IndexScalarQuantizer(width, lib.ScalarQuantizer.QT_8bit_uniform, lib.METRIC_INNER_PRODUCT)
    # A byte stands for a 255th of the range, and faiss takes its middle: 128 is to be 0, and a step 1.
    lib.copy_array_to_vector(np.asarray([-_LEVELS - 1.5, 255], np.float32), index.sq.trained)
    index.is_trained, index.ntotal = True, rows
    lib.copy_array_to_vector(codes.reshape(-1), index.codes)
    return index
