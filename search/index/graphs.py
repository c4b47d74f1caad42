"""Structures of faiss that do not look at every row, for large segments: built by a factory string, tuned, kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ArtifactError, UsageError, first_line
from emb.quantize.vectors.base import Codec, Codes
from emb.search.index.candidates import Candidates, Found, Mask, faiss, metric_of
from emb.search.index.segments import write
from emb.search.index.verify import scores_of
from emb.similarity import Vectors

LARGE = 200_000  # rows of floats or int8 that are all looked at; docs/index.md has the figures
LARGE_BITS = 10_000_000  # rows of bits
_KEPT = {"float32": "Flat", "float16": "SQfp16", "int8": "SQ8", "int4": "SQ4"}
_TRAINED = 100_000  # rows that the structure is trained on
_TRIED = 50  # rows that serve as queries while the effort is chosen
_ENOUGH = 0.99  # of the ten nearest that an exact search finds
_ADDED = 50_000  # rows at a time
_FILTERED = 0.05  # of the rows: fewer are scored one by one


def factory_for(rows: int, codec: str, measure: str) -> str | None:
    """The structure for so many rows where none is asked for; None to look at every one."""
    if measure == "manhattan" or rows < (LARGE_BITS if codec == "binary" else LARGE):
        return None
    lists = 2 ** round(np.log2(4 * rows**0.5))
    return f"BIVF{lists}" if codec == "binary" else f"IVF{lists},{_KEPT[codec]}"


def check_factory(factory: str, codec: str, dim: int, measure: str) -> None:
    """Refuse a factory string that faiss does not know.

    Raises:
        UsageError: what faiss says.
    """
    _empty(factory, codec, dim, measure)


def build(factory: str, codec: Codec, codes: Codes, measure: str, path: Path) -> str:
    """Train and fill the structure over a segment's codes, choose how hard it looks, and write it to `path`; return
    the file's checksum.

    Raises:
        UsageError: too few rows for it.
        DiskError: no room.
    """
    index = _empty(factory, codec.kind, codec.dim, measure)
    step = max(1, len(codes) // _TRAINED)
    try:
        index.train(_rows(codec, codes[::step]))
        for start in range(0, len(codes), _ADDED):
            index.add(_rows(codec, codes[start : start + _ADDED]))
    except RuntimeError as error:
        raise UsageError(
            f"--factory {factory}: faiss cannot build it ({first_line(error)})", "choose fewer lists"
        ) from error
    _tune(index, _rows(codec, codes[:: max(1, len(codes) // _TRIED)]))
    lib = faiss()
    return write(path, [lib.serialize_index_binary(index) if codec.kind == "binary" else lib.serialize_index(index)])


class Graph(Candidates):
    """A structure that `build` wrote."""

    whole = False

    def __init__(self, path: Path, codec: Codec, codes: Codes, measure: str) -> None:
        """Raises:
        ArtifactError: the file is damaged, or of another number of rows.
        """
        lib = faiss()
        self.codec, self.codes, self.measure, self.size = codec, codes, measure, path.stat().st_size
        try:
            data = np.fromfile(path, np.uint8)
            self.index = lib.deserialize_index_binary(data) if codec.kind == "binary" else lib.deserialize_index(data)
        except RuntimeError as error:
            raise ArtifactError(f"{path}: damaged", "build it anew: emb index DOCS --doc MODEL --out DIR") from error
        if self.index.ntotal != len(codes):
            raise ArtifactError(
                f"{path}: of {self.index.ntotal:,} rows, the segment has {len(codes):,}",
                "build it anew: emb index DOCS --doc MODEL --out DIR",
            )

    def find(self, query: Vectors, depth: int, allowed: Mask) -> Found:
        """See `Candidates`: where few rows are allowed, or the structure finds too few of them, every one is scored."""
        count = int(allowed.sum())
        if count > _FILTERED * len(allowed):
            rows = self._searched(query, min(len(allowed), int(depth * len(allowed) / count)))
            rows = rows[allowed[rows]][:depth]
            if len(rows) == min(depth, count):
                return Found(rows, -np.inf if len(rows) == count else None)
        return self._every(query, depth, np.flatnonzero(allowed))

    def _searched(self, query: Vectors, depth: int) -> Any:
        row = self.codec.encode(query[None]) if self.codec.kind == "binary" else query[None]
        found = self.index.search(row, depth)[1][0]
        return found[found >= 0]

    def _every(self, query: Vectors, depth: int, rows: Any) -> Found:
        scores = scores_of(query, self.codec, self.codes, rows, self.measure)
        best = np.argsort(-scores, kind="stable")[:depth]
        return Found(rows[best], -np.inf if depth >= len(rows) else None)


def _empty(factory: str, codec: str, dim: int, measure: str) -> Any:
    lib = faiss()
    try:
        if codec == "binary":
            return lib.index_binary_factory(8 * ((dim + 7) // 8), factory)
        return lib.index_factory(dim, factory, metric_of(measure))
    except RuntimeError as error:
        kind = "one of bits, such as BIVF1024" if codec == "binary" else "such as IVF1024,Flat or HNSW32,SQ8"
        raise UsageError(
            f"--factory {factory}: faiss does not know it ({first_line(error)})", f"give {kind}"
        ) from error


def _rows(codec: Codec, codes: Codes) -> Any:
    return np.ascontiguousarray(codes if codec.kind == "binary" else codec.decode(codes))


def _tune(index: Any, queries: Any) -> None:
    """Double the lists or neighbours that are looked at until what is found stays: it is kept with the structure."""
    name = next((each for each in ("nprobe", "hnsw") if hasattr(index, each)), None)
    if name is None:
        return
    most = index.nlist if name == "nprobe" else 1024
    efforts = [2**power for power in range(3, 20) if 2**power < most] + [most]
    found = []
    for effort in efforts:
        _set(index, name, effort)
        found.append(index.search(queries, 10)[1])
    enough = next(i for i, rows in enumerate(found) if _share(found[-1], rows) >= _ENOUGH)
    _set(index, name, efforts[enough])


def _set(index: Any, name: str, effort: int) -> None:
    if name == "nprobe":
        index.nprobe = effort
    else:
        index.hnsw.efSearch = effort


def _share(truth: Any, found: Any) -> float:
    return float((truth[:, :, None] == found[:, None, :]).any(2).mean())
