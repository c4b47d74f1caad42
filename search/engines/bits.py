"""What plain signs of vectors find: some models' lose much, above all those turned along principal axes."""

from __future__ import annotations

import numpy as np

from emb.progress import warn
from emb.search.index.ranking import DEPTH
from emb.similarity import Vectors

SAMPLE = 2000  # vectors that are looked at
_ASKED, _NEAREST = 300, 10
_ENOUGH = 0.95


def kept_by_signs(vectors: Vectors, candidates: int) -> float:
    """Mean share of the ten nearest of `vectors` `(rows, dim)` that are among so many with the most equal signs."""
    asked = vectors[:: -(-len(vectors) // _ASKED)]
    signs = np.where(vectors > 0, np.float32(1), np.float32(-1))
    found = np.argsort(-(signs[:: -(-len(vectors) // _ASKED)] @ signs.T), axis=1, kind="stable")[:, :candidates]
    nearest = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :_NEAREST]
    return float(np.mean([np.isin(near, some).mean() for near, some in zip(nearest, found, strict=True)]))


def warn_of_lost(sample: Vectors, rows: int) -> None:
    """Tell if signs lose much of what whole vectors find, where `rows` give a sample `(some rows, dim)`."""
    candidates = max(_NEAREST, DEPTH * len(sample) // max(rows, 1))
    if len(sample) <= candidates:
        return
    kept = kept_by_signs(sample, candidates)
    if kept < _ENOUGH:
        warn(
            f"--find bits: among {DEPTH:,} candidates by sign stand only {kept:.0%} of these vectors' ten nearest;"
            " --find hnsw loses less, and needs a table of its own or --overwrite"
        )
