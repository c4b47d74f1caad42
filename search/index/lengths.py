"""How long old vectors are behind a map: cosines need vectors of one length, and a map shrinks some more than others.

One number for each row, worked out once, when a migration begins; rows that came later are measured when they are
loaded, and so are all of a file that is not as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emb.files import atomic_path, sha256_file
from emb.search.index.loaded import Segment
from emb.similarity import Vectors

_BLOCK = 8192  # rows at a time


def write_lengths(segments: Sequence[Segment], matrix: Vectors, inside: Path) -> dict[Path, str]:
    """Measure every row and write the numbers into the new index's folder; return the files' checksums.

    Raises:
        DiskError: no room.
    """
    for segment in segments:
        with atomic_path(_place(segment, inside)) as partial, partial.open("wb") as handle:
            np.save(handle, _measured(segment, matrix), allow_pickle=False)
    return {place: sha256_file(place) for place in (_place(segment, inside) for segment in segments)}


def lengths_of(segment: Segment, matrix: Vectors, inside: Path, sealed: Mapping[str, str]) -> Vectors:
    """Lengths `(rows,)` of a segment's vectors behind `matrix`, at least a millionth; `sealed` are the checksums of
    files by their names.
    """
    place = _place(segment, inside)
    whole = place.is_file() and sha256_file(place) == sealed.get(place.name)
    found = np.load(place, allow_pickle=False) if whole else None
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
