"""Scores of single rows by the finest vectors that are stored, so that they depend on nothing but the two vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.quantize.vectors.base import Codec, Codes
from emb.similarity import Vectors, similarities

_BLOCK = 8192  # rows decoded at a time


def scores_of(query: Vectors, codec: Codec, codes: Codes, rows: Any, measure: str) -> Vectors:
    """Scores `(rows,)` of a query `(dim,)` with the vectors that `codes[rows]` stand for."""
    parts = [
        _scores(query, codec, codes[rows[start : start + _BLOCK]], measure) for start in range(0, len(rows), _BLOCK)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _scores(query: Vectors, codec: Codec, codes: Codes, measure: str) -> Vectors:
    if measure == "dot":
        return np.asarray(codec.scores(query[None], codes)[0])
    return np.asarray(similarities(query[None], codec.decode(codes), measure)[0])
