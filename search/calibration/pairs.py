"""Pairs of a query and a document, with the word whether the document is relevant: the head of each ranking, and
documents at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emb.similarity import Vectors, similarities

HEAD = 100  # documents of a ranking that a search may show
_RANDOM = 50  # further ones, so that the map knows what a low score means
_BLOCK = 256  # queries whose similarities to all documents are held at a time


@dataclass(frozen=True)
class Pairs:
    """For each query its vector `(queries, dim)`, the scores `(queries, documents)` of some documents, and which of
    these are `relevant`. The first `head` columns are the beginning of the ranking.
    """

    texts: Sequence[str]
    vectors: Vectors
    scores: Vectors
    relevant: Vectors
    head: int

    def __len__(self) -> int:
        return len(self.texts)

    def only(self, rows: Vectors) -> Pairs:
        """Those of some queries."""
        texts = [self.texts[row] for row in rows]
        return Pairs(texts, self.vectors[rows], self.scores[rows], self.relevant[rows], self.head)

    @property
    def heads(self) -> Pairs:
        """Those that a search shows."""
        return Pairs(self.texts, self.vectors, self.scores[:, : self.head], self.relevant[:, : self.head], self.head)


def pair_up(
    texts: Sequence[str],
    queries: Vectors,
    documents: Vectors,
    relevant: Sequence[set[int]],
    similarity: str = "cosine",
    seed: int = 0,
) -> Pairs:
    """Rank `documents` `(documents, dim)` for each of `queries` `(queries, dim)` by `similarity`; `relevant` holds the
    rows of the relevant documents of each.
    """
    random = np.random.default_rng(seed)
    head = min(HEAD, len(documents))
    further = min(_RANDOM, len(documents) - head)
    scores, rows = [], []
    for start in range(0, len(queries), _BLOCK):
        block = similarities(queries[start : start + _BLOCK], documents, similarity)
        for row, order in zip(block, np.argsort(-block, axis=1, kind="stable"), strict=True):
            chosen = np.concatenate([order[:head], random.choice(order[head:], further, replace=False)])
            scores.append(row[chosen])
            rows.append(chosen)
    told = [np.isin(chosen, list(found)) for chosen, found in zip(rows, relevant, strict=True)]
    return Pairs(list(texts), np.asarray(queries), np.stack(scores), np.stack(told), head)
