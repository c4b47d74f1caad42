"""How documents are cut to fewer dims, learned from queries: what a cut query finds is what the whole one finds.

A rotation treats both sides alike, and 128 of a teacher's dims then lose what tells near documents apart. Here queries
stay as they are cut, and documents go through a matrix of their own, which takes from all of their dims: the order in
which the whole query finds them is learned (`learned_order`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emb.search.index.learned_order import descended, order_of
from emb.search.index.space import Space
from emb.similarity import Vectors, highest, unit

_HELD_OUT = 1000  # queries at most, and a tenth of them


@dataclass(frozen=True)
class LearnedCut:
    """A matrix `(dim, encoder's dim)` for documents, and the mean share of the ten documents of held-out whole queries
    that cut queries find: `alike` with both sides cut in the same way, `learned` with documents behind the matrix.
    """

    matrix: Vectors
    alike: float
    learned: float


def learn_cut(queries: Vectors, documents: Vectors, space: Space, seed: int = 0) -> LearnedCut:
    """Learn it from an encoder's vectors of queries `(queries, encoder's dim)`, ten at least, for documents
    `(documents, encoder's dim)`.

    `space` is the one that queries are cut in; vectors in it have length 1.
    """
    random = np.random.default_rng(seed)
    queries = queries[random.permutation(len(queries))]
    count = min(_HELD_OUT, len(queries) // 10)
    held_out, asked = queries[:count], queries[count:]
    whole = unit(documents)
    matrix = descended(space.apply(asked), order_of(unit(asked), whole), whole, _start(space, whole.shape[1]), random)
    alike, learned = (
        _found(unit(held_out) @ whole.T, space.apply(held_out) @ each.T)
        for each in (space.apply(documents), unit(whole @ matrix.T))
    )
    return LearnedCut(matrix, alike, learned)


def _start(space: Space, dim: int) -> Vectors:
    """The matrix that queries are cut by."""
    turn = np.eye(dim, dtype=np.float32) if space.rotation is None else space.rotation
    return np.array(turn[: space.dim], np.float32)


def _found(whole: Vectors, cut: Vectors) -> float:
    """Mean share of the ten documents with the highest scores in `whole` that have them in `cut` as well."""
    ten, found = (highest(scores, min(10, scores.shape[1])) for scores in (whole, cut))
    return float((ten[:, :, None] == found[:, None, :]).any(2).mean())
