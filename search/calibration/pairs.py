"""Pairs of a query and a document that a search may show, with the word whether the document is relevant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emb.similarity import Vectors, similarities

HEAD = 100  # documents of a ranking that a search may show
_BLOCK = 256  # queries whose similarities to all documents are held at a time


@dataclass(frozen=True)
class Pairs:
    """For each query its vector `(queries, dim)`, the scores `(queries, head)` of its best documents, the best first,
    and which of these are `relevant`.

    Documents at random are no part of it: on SciFact they cost a map a seventh of its average precision, because it
    learnt to tell these from the rest in place of the hits from one another.
    """

    texts: Sequence[str]
    vectors: Vectors
    scores: Vectors
    relevant: Vectors

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def head(self) -> int:
        """How many documents each query has."""
        return int(self.scores.shape[1])

    def only(self, rows: Vectors) -> Pairs:
        """Those of some queries."""
        return Pairs([self.texts[row] for row in rows], self.vectors[rows], self.scores[rows], self.relevant[rows])


def pair_up(
    texts: Sequence[str],
    queries: Vectors,
    documents: Vectors,
    relevant: Sequence[set[int]],
    similarity: str = "cosine",
) -> Pairs:
    """Rank `documents` `(documents, dim)` for each of `queries` `(queries, dim)` by `similarity`; `relevant` holds the
    rows of the relevant documents of each.
    """
    scores: list[Vectors] = []
    rows: list[Vectors] = []
    for start in range(0, len(queries), _BLOCK):
        block = similarities(queries[start : start + _BLOCK], documents, similarity)
        best = np.argsort(-block, axis=1, kind="stable")[:, :HEAD]
        scores.append(np.take_along_axis(block, best, axis=1))
        rows.extend(best)
    told = [np.isin(chosen, list(found)) for chosen, found in zip(rows, relevant, strict=True)]
    return Pairs(list(texts), np.asarray(queries), np.concatenate(scores), np.stack(told))
