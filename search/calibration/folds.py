"""Queries in five parts, by a hash: whatever else is asked, a query stays in its part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emb.similarity import Vectors

FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Rows of queries that are fitted to, that say when to stop, and that are judged."""

    fitted: Vectors
    stopping: Vectors
    held_out: Vectors


def folds_of(texts: Sequence[str]) -> Vectors:
    """The part, 0 to 4, of each text `(texts,)`; case and blanks make no other query."""
    keys = (said(text).encode() for text in texts)
    return np.array([int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") % FOLDS for key in keys])


def said(text: str) -> str:
    """What makes a query another one."""
    return " ".join(text.split()).casefold()


def splits(folds: Vectors) -> Iterator[Split]:
    """Each part held out once, the next one saying when to stop."""
    for held_out in range(FOLDS):
        stopping = (held_out + 1) % FOLDS
        used = (folds != held_out) & (folds != stopping)
        yield Split(*(np.flatnonzero(each) for each in (used, folds == stopping, folds == held_out)))
