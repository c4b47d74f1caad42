"""Ways to find the rows of a segment that are nearest to a query, each over what faiss or a codec holds in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.errors import needs_extra
from emb.quantize.vectors.base import Codec, Codes
from emb.quantize.vectors.scalar import Float16Codec, Float32Codec, Int4Codec, Int8Codec
from emb.similarity import Vectors

Rows = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Found:
    """Rows of a segment, the best first.

    Attributes:
        least: no row that was left out has a higher score; -inf if none was left out, None if nothing is known.
    """

    rows: Rows
    least: float | None


class Candidates(ABC):
    """What is in memory of one segment.

    Attributes:
        size: bytes.
        whole: whether it finds the very best by the stored codes: then these need no second look in depth.
    """

    size: int
    whole: bool

    @property
    def closer(self) -> Candidates:
        """What to ask where it is not known whether these leave out something better."""
        return self

    @abstractmethod
    def find(self, query: Vectors, depth: int, allowed: Mask) -> Found:
        """At most `depth` of the `allowed` rows for a query `(dim,)`; all of them where there are no more."""


class FaissFlat(Candidates):
    """An index of faiss that looks at every row, of floats or of the codes as they are."""

    whole = True

    def __init__(self, codec: Codec, codes: Codes, measure: str) -> None:
        self.index = flat_index(codec, codes, measure)
        self.size, self.measure = codes.nbytes, measure

    def find(self, query: Vectors, depth: int, allowed: Mask) -> Found:
        """See `Candidates`."""
        left = int(np.count_nonzero(allowed))
        count = min(depth, left)
        if not count:
            return Found(np.empty(0, np.int64), -np.inf)
        scores, rows = self.index.search(query[None], count, params=only(allowed, left))
        least = -np.inf if count == left else as_scores(scores[0, -1:], self.measure)[0]
        return Found(rows[0], float(least))


class Hamming(Candidates):
    """Bits, by how many differ from those of the query."""

    whole = False

    def __init__(self, codec: Codec, codes: Codes) -> None:
        self.codec, self.size = codec, codes.nbytes
        self.index = faiss().IndexBinaryFlat(8 * codes.shape[1])
        self.index.add(np.ascontiguousarray(codes))

    def find(self, query: Vectors, depth: int, allowed: Mask) -> Found:
        """See `Candidates`."""
        left = int(np.count_nonzero(allowed))
        count = min(depth, left)
        if not count:
            return Found(np.empty(0, np.int64), -np.inf)
        _, rows = self.index.search(self.codec.encode(query[None]), count, params=only(allowed, left))
        return Found(rows[0], -np.inf if count == left else None)


class Scored(Candidates):
    """Codes by their own scores with the float query: sign bits where no finer vectors stand beside them."""

    whole = True

    def __init__(self, codec: Codec, codes: Codes) -> None:
        self.codec, self.codes, self.size = codec, np.asarray(codes), codes.nbytes

    def find(self, query: Vectors, depth: int, allowed: Mask) -> Found:
        """See `Candidates`."""
        rows = np.flatnonzero(allowed)
        scores = self.codec.scores(query[None], self.codes[rows])[0]
        if depth >= len(rows):
            return Found(rows, -np.inf)
        best = np.argpartition(-scores, depth)[: depth + 1]
        return Found(rows[best], float(scores[best].min()))


def flat_index(codec: Codec, codes: Codes, measure: str) -> Any:
    """faiss's index over codes as they are; it scores them as the codec does."""
    lib = faiss()
    metric = metric_of(measure)
    if isinstance(codec, Float32Codec):
        index = lib.IndexFlat(codec.dim, metric)
        index.add(np.ascontiguousarray(codes))
        return index
    kinds = {
        Float16Codec: lib.ScalarQuantizer.QT_fp16,
        Int8Codec: lib.ScalarQuantizer.QT_8bit,
        Int4Codec: lib.ScalarQuantizer.QT_4bit,
    }
    index = lib.IndexScalarQuantizer(codec.dim, kinds[type(codec)], metric)
    if isinstance(codec, Int8Codec | Int4Codec):
        low, high = codec.ranges
        levels = 255 if isinstance(codec, Int8Codec) else 15
        # faiss takes a level's middle where the codec takes its beginning.
        lib.copy_array_to_vector(
            np.concatenate([low - (high - low) / levels / 2, high - low]).astype(np.float32), index.sq.trained
        )
    index.is_trained, index.ntotal = True, len(codes)
    lib.copy_array_to_vector(_bytes(codec, codes).reshape(-1), index.codes)
    return index


def _bytes(codec: Codec, codes: Codes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Codes as faiss has them: from 0 where int8 begins at -128, and the first of two dimensions in the low half."""
    raw: Any = np.ascontiguousarray(codes).view(np.uint8)
    if isinstance(codec, Int8Codec):
        raw = raw ^ np.uint8(128)
    elif isinstance(codec, Int4Codec):
        raw = (raw << 4) | (raw >> 4)
    return np.asarray(raw)


def metric_of(measure: str) -> Any:
    """faiss's name of a measure."""
    lib = faiss()
    return {"dot": lib.METRIC_INNER_PRODUCT, "euclidean": lib.METRIC_L2, "manhattan": lib.METRIC_L1}[measure]


def as_scores(found: Vectors, measure: str) -> Vectors:
    """faiss's numbers as scores, higher is closer; it squares euclidean distances."""
    if measure == "dot":
        return found
    return -np.sqrt(np.maximum(found, 0)) if measure == "euclidean" else -found


def faiss() -> Any:
    """The library.

    Raises:
        MissingExtra: it is not installed.
    """
    with needs_extra():
        import faiss as library
    return library


def only(allowed: Mask, count: int) -> Any:
    """What tells faiss to look at the `allowed` rows alone, of which there are `count`; None for all."""
    if count == len(allowed):
        return None
    lib = faiss()
    return lib.SearchParameters(sel=lib.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))
