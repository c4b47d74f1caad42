"""An index searched in fewer dims than it keeps: the first ones of both sides, of length 1 again where they were.

No code of fewer dims can be read off the codes of more: cosines need each document's length in the dims that count.
So the finest vectors that are stored are decoded, cut and held as floats, and every one is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from emb.errors import UsageError
from emb.quantize.vectors.base import Codec, Codes
from emb.quantize.vectors.scalar import Float32Codec
from emb.search.index.candidates import FaissFlat, faiss
from emb.search.index.description import Description
from emb.search.index.loaded import Segment, Stored
from emb.search.index.space import DIRECTIONS_ONLY, Space
from emb.similarity import Vectors

_BLOCK = 8192  # rows decoded at a time


def require_dim(known: Description, dim: int) -> None:
    """Make sure that an index can be searched in so many dims.

    Raises:
        UsageError: it keeps fewer, or nothing that can be cut.
    """
    whole = known.space.dim
    if not 1 <= dim <= whole:
        raise UsageError(f"dim {dim}: the index keeps {whole}", f"choose 1 to {whole}")
    if dim < whole and known.layout.finest in DIRECTIONS_ONLY:
        raise UsageError(
            f"dim {dim}: the index holds nothing but {known.layout.finest} codes of {whole} dims, which cannot be cut",
            f"search in {whole} dims, or build the index with --rescore lvq8 or with --dim {dim}",
        )


@dataclass
class Prefixes:
    """Cut segments by their dims; what they are made of is kept until it changes."""

    _made: dict[int, list[tuple[Stored, Stored]]] = field(default_factory=dict)

    def segments(self, segments: Sequence[Segment], space: Space) -> list[Segment]:
        """The same `segments` in `space`, which is theirs with fewer dims."""
        known = self._made.get(space.dim, [])
        made = [(each.stored, _known(each.stored, known) or _cut(each.stored, space)) for each in segments]
        self._made[space.dim] = made
        return [
            Segment(each.row, each.members, stored, space) for each, (_, stored) in zip(segments, made, strict=True)
        ]


def _known(stored: Stored, known: Sequence[tuple[Stored, Stored]]) -> Stored | None:
    return next((cut for source, cut in known if source is stored), None)


def _cut(stored: Stored, space: Space) -> Stored:
    codec = Float32Codec(space.dim)
    candidates = FaissFlat(codec, _decoded(stored.codec, stored.codes, space.turned(None)), space.measure)
    # What faiss holds is looked at, not held twice.
    flat = faiss().rev_swig_ptr(candidates.index.get_xb(), candidates.index.ntotal * space.dim)
    return Stored(candidates, codec, flat.reshape(-1, space.dim))


def _decoded(codec: Codec, codes: Codes, space: Space) -> Vectors:
    """Vectors `(rows, space's dim)` float32; they are turned already."""
    vectors = np.empty((len(codes), space.dim), np.float32)
    for start in range(0, len(codes), _BLOCK):
        vectors[start : start + _BLOCK] = space.apply(codec.decode(codes[start : start + _BLOCK]))
    return vectors
