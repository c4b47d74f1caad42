"""The best documents for one query vector: candidates of every segment, put in order by the finest vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from emb.search.index.candidates import Mask, Rows
from emb.search.index.loaded import Segment
from emb.similarity import Vectors

DEPTH = 1000  # candidates where codes choose and finer vectors decide
_MORE = 32  # beyond k, where the codes decide: ties and further passages of one document
_ROUNDING = 1e-5  # of faiss's float32 sums


class Ranked(NamedTuple):
    """A document by its best passage, as keys of the catalogue."""

    score: float
    document: int
    passage: int


@dataclass(frozen=True)
class Reached:
    """What makes scores of a segment those of another space: `offset` is added, `lengths` `(rows,)` divide them, and
    `scale` and `shift` bring them to the height that scores have there.
    """

    offset: float
    lengths: Vectors | None
    scale: float = 1.0
    shift: float = 0.0

    def scores(self, found: Vectors, rows: Rows) -> Vectors:
        """Scores of `rows`."""
        if self is _ITSELF:
            return found
        moved: Vectors = found + np.float32(self.offset)
        moved = moved if self.lengths is None else moved / self.lengths[rows]
        return moved * np.float32(self.scale) + np.float32(self.shift)

    def least(self, found: float | None) -> float | None:
        """What no row that was left out exceeds; rows of other lengths may."""
        if found is None or found == -np.inf:
            return found
        return (found + self.offset) * self.scale + self.shift if self.lengths is None else None


_ITSELF = Reached(0.0, None)


@dataclass(frozen=True)
class Aim:
    """One segment, the query `(dim,)` in its space, the rows that may be found there, and what its scores stand for
    if they are of another space than that of the others.
    """

    segment: Segment
    query: Vectors
    allowed: Mask
    reached: Reached = _ITSELF

    @property
    def whole(self) -> bool:
        """Whether what finds candidates finds the very best."""
        return self.segment.stored.candidates.whole and self.reached.lengths is None


class _Found(NamedTuple):
    """Documents by their best passages, the best first: arrays `(documents,)`."""

    scores: Vectors
    documents: Rows
    passages: Rows


_NONE: Rows = np.empty(0, np.int64)


def best_documents(
    aims: Sequence[Aim],
    k: int,
    names: Callable[[Sequence[int]], dict[int, str]],
    depth: int = DEPTH,
) -> list[Ranked]:
    """The `k` best documents for a query, the best first; equal ones by their ids.

    Args:
        aims: all that is searched, and for what.
        k: how many; fewer where there are fewer.
        names: ids of documents by their keys; asked for what ties.
        depth: candidates of each segment where finer vectors decide.
    """
    whole = all(aim.whole for aim in aims)
    wanted = k + _MORE if whole else max(depth, k + _MORE)
    again = False
    while True:
        found, least = _candidates(aims, wanted, again)
        if least == -np.inf or (len(found.scores) >= k and _settled(found, k, least)):
            return _cut(found, k, names)
        wanted, again = wanted * 4, True


def _candidates(aims: Sequence[Aim], depth: int, again: bool) -> tuple[_Found, float | None]:
    """The best passage of each document found, the best first; and what no other row can exceed: -inf where all were
    looked at, None where that is not known.
    """
    passages, documents, scores = [_NONE], [_NONE], [np.empty(0, np.float32)]
    bounds: list[float | None] = []
    for aim in aims:
        segment = aim.segment
        candidates = segment.stored.candidates
        # Scores that lengths divide say nothing of what was left out.
        candidates = candidates.closer if again or aim.reached.lengths is not None else candidates
        near = candidates.find(aim.query, depth, aim.allowed)
        bounds.append(aim.reached.least(near.least))
        passages.append(segment.members.passages[near.rows])
        documents.append(segment.members.documents[near.rows])
        scores.append(aim.reached.scores(segment.scores(aim.query, near.rows), near.rows))
    least = None if None in bounds else max((bound for bound in bounds if bound is not None), default=-np.inf)
    return _by_document(np.concatenate(scores), np.concatenate(documents), np.concatenate(passages)), least


def _by_document(scores: Vectors, documents: Rows, passages: Rows) -> _Found:
    order = np.lexsort((passages, -scores))
    best = order
    if len(set(documents.tolist())) < len(documents):  # documents of several passages
        _, first = np.unique(documents[order], return_index=True)
        best = order[np.sort(first)]
    return _Found(scores[best], documents[best], passages[best])


def _settled(found: _Found, k: int, least: float | None) -> bool:
    """Whether no row that was left out can be as good as the last of the `k`."""
    return least is None or found.scores[k - 1] > least + _ROUNDING * max(1.0, abs(least))


def _cut(found: _Found, k: int, names: Callable[[Sequence[int]], dict[int, str]]) -> list[Ranked]:
    """The first `k`; ids are looked for where scores are equal alone."""
    if not len(found.scores):
        return []
    last = found.scores[min(k, len(found.scores)) - 1]
    level = int(np.count_nonzero(found.scores >= last))  # with all that are as good as the last
    top = [Ranked(*each) for each in zip(*(part[:level].tolist() for part in found), strict=True)]
    if len({each.score for each in top}) == len(top):
        return top
    ids = names([each.document for each in top])
    # A document that is gone by now has no id; that its passage is gone too is noticed where hits are made.
    return sorted(top, key=lambda each: (-each.score, ids.get(each.document, "")))[:k]
