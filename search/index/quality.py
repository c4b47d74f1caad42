"""What an index finds of what it stores, and what it takes in memory, measured on itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emb.search.index.candidates import Rows
from emb.search.index.loaded import Segment
from emb.search.index.ranking import DEPTH, Aim, best_documents
from emb.search.index.reader import Index
from emb.search.index.snapshot import Snapshot
from emb.similarity import Vectors, similarities

_QUERIES = 100
_K = 10
_KEPT = 200  # of the best pieces of a block: documents have several
_BLOCK = 8192


@dataclass(frozen=True)
class Quality:
    """Figures of an index.

    Attributes:
        vectors: pieces of documents that are stored.
        memory, floats: bytes in memory, and those of the same vectors as float32.
        recall: mean share of a stored vector's ten nearest documents, by all of the finest vectors, that a search for
            it finds; itself left out.
    """

    vectors: int
    memory: int
    floats: int
    recall: float | None


def judge(index: Index) -> Quality:
    """Measure an index with some of its own vectors as queries."""
    snapshot = index.snapshot()
    vectors = sum(int(segment.members.live.sum()) for segment in snapshot.segments)
    floats = 4 * snapshot.space.dim * vectors
    return Quality(vectors, index.memory, floats, recall(snapshot) if vectors > 1 else None)


def recall(snapshot: Snapshot, queries: int = _QUERIES, depth: int = DEPTH) -> float:
    """Of the ten nearest documents of evenly spread stored vectors, the share that a search finds."""
    documents, vectors = _samples(snapshot.segments, queries)
    shares = []
    for document, query, truth in zip(documents, vectors, _exact(vectors, snapshot.segments), strict=True):
        aims = [Aim(segment, query, segment.members.live) for segment in snapshot.segments]
        found = best_documents(aims, _K + 1, _by_key, depth)
        near, right = (
            [each for each in keys if each != document][:_K] for keys in ([x.document for x in found], truth)
        )
        shares.append(len(set(near) & set(right)) / len(right) if right else 1.0)
    return float(np.mean(shares))


def _by_key(keys: Sequence[int]) -> dict[int, str]:
    return {key: f"{key:020d}" for key in keys}


def _samples(segments: Sequence[Segment], count: int) -> tuple[list[int], Vectors]:
    """Documents, and their stored vectors `(documents, dim)`."""
    live = [np.flatnonzero(segment.members.live) for segment in segments]
    step = -(-sum(map(len, live)) // count)
    keys, vectors = [], []
    for segment, rows in zip(segments, live, strict=True):
        chosen = rows[::step]
        keys += segment.members.documents[chosen].tolist()
        vectors.append(segment.stored.codec.decode(segment.stored.codes[chosen]))
    return keys, np.concatenate(vectors)


def _exact(queries: Vectors, segments: Sequence[Segment]) -> list[list[int]]:
    """Keys of the nearest documents of each query, the best first, by every stored vector."""
    best: list[dict[int, float]] = [{} for _ in queries]
    for segment in segments:
        live = np.flatnonzero(segment.members.live)
        for start in range(0, len(live), _BLOCK):
            rows = live[start : start + _BLOCK]
            scores = similarities(
                queries, segment.stored.codec.decode(segment.stored.codes[rows]), segment.space.measure
            )
            for known, row in zip(best, scores, strict=True):
                _merge(known, segment.members.documents[rows], row)
    return [sorted(known, key=lambda key: (-known[key], key)) for known in best]


def _merge(known: dict[int, float], documents: Rows, scores: Vectors) -> None:
    """Add a block's best documents to those known, and keep the best of all."""
    for place in np.argsort(-scores, kind="stable")[:_KEPT].tolist():
        key = int(documents[place])
        known[key] = max(known.get(key, -np.inf), float(scores[place]))
    for key in sorted(known, key=lambda key: (-known[key], key))[_KEPT:]:
        del known[key]
