"""How long old vectors are behind a map: cosines need vectors of one length, and a map shrinks some more than others.

One number for each row, worked out once, when a migration begins; rows that came later are measured when they are
loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emb.files import atomic_path
from emb.search.index.loaded import Segment
from emb.similarity import Vectors

_BLOCK = 8192  # rows at a time


def write_lengths(segments: Sequence[Segment], matrix: Vectors, inside: Path) -> None:
    """Measure every row and write the numbers into the new index's folder.

    Raises:
        DiskError: no room.
    """
    for segment in segments:
        with atomic_path(_place(segment, inside)) as partial, partial.open("wb") as handle:
            np.save(handle, _measured(segment, matrix), allow_pickle=False)


def lengths_of(segment: Segment, matrix: Vectors, inside: Path) -> Vectors:
    """Lengths `(rows,)` of a segment's vectors behind `matrix`, at least a millionth."""
    place = _place(segment, inside)
    found = np.load(place, allow_pickle=False) if place.is_file() else None
    return _measured(segment, matrix) if found is None or len(found) != segment.row.rows else np.asarray(found)


def _place(segment: Segment, inside: Path) -> Path:
    return inside / f"lengths-{segment.row.id:06d}.npy"


def _measured(segment: Segment, matrix: Vectors) -> Vectors:
    rows, codec = segment.row.rows, segment.stored.codec
    found = np.empty(rows, np.float32)
    for start in range(0, rows, _BLOCK):
        vectors = codec.decode(np.asarray(segment.stored.codes[start : start + _BLOCK]))
        found[start : start + _BLOCK] = np.linalg.norm(vectors @ matrix[:, :-1].T + matrix[:, -1], axis=1)
    return np.maximum(found, 1e-6)
