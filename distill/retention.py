"""How much of the teacher's search in the user's own documents a student keeps, before any real query is known.

A pseudo-query should find the document it was cut from (known-item search, Azzopardi et al. 2007). Among the
teacher's document vectors, its nDCG@10 with the student's query vectors, divided by that with the teacher's own, is
what real queries can expect to keep.

Titles and sentences alone are asked. Spans and groups of rare words are for training: a student that has read the
documents finds those words better than its teacher does, which says nothing of real queries (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emb.artifact.manifest import LayerDimPair, PairScores
from emb.data.corpus import Text
from emb.data.pseudo_queries import PseudoQuery
from emb.similarity import Vectors, similarities, unit

_CUT = 10
_NEAR = 0.02  # about what the choice of a thousand pseudo-queries moves a figure by
ENOUGH = 30  # pseudo-queries; fewer say nothing


@dataclass(frozen=True)
class KnownItems:
    """Places of held-out pseudo-queries among the held-out texts, the document each was cut from, and the teacher's
    vectors of all documents `(documents, dim)`.

    Vectors of texts `(texts, dim)` may be rivals of the documents; `owners` says which document each was cut from, or
    -1: for a query of that one it is no rival.
    """

    rows: list[int]
    sources: list[int]
    documents: Vectors
    rivals: Vectors | None = None
    owners: Sequence[int] = ()

    def field(self) -> tuple[Vectors, Sequence[int]]:
        """All that is searched in, documents first, and the document that each row is or was cut from."""
        own = range(len(self.documents))
        return (
            (self.documents, own)
            if self.rivals is None
            else (np.concatenate([self.documents, self.rivals]), [*own, *self.owners])
        )


def known_items(held_out: Sequence[Text], cut: Sequence[PseudoQuery], vectors: Vectors) -> KnownItems:
    """Which held-out texts are natural ones among those `cut` from documents, whose `vectors` are by the teacher."""
    source = {each.text: each.document for each in cut if each.natural}
    rows = [row for row, item in enumerate(held_out) if item.text in source]
    return KnownItems(rows, [source[held_out[row].text] for row in rows], vectors)


def with_retention(
    scores: Sequence[PairScores],
    items: KnownItems,
    teacher: Vectors,
    student: Mapping[LayerDimPair, Vectors],
    measure: str = "cosine",
) -> list[PairScores]:
    """`scores` with what each pair keeps of the teacher's nDCG@10 at full dim, both sides cut to the pair's dim.

    `teacher` and `student` hold vectors of all held-out texts. Fewer than 30 pseudo-queries give no figure.
    """
    if len(items.rows) < ENOUGH:
        return list(scores)
    documents, owners = items.field()
    whole = found_again(teacher[items.rows], documents, items.sources, measure, owners)
    found = []
    for each in scores:
        left, right = (side[:, : each.dim] for side in (student[each.pair][items.rows], documents))
        kept = found_again(left, right, items.sources, measure, owners) / max(whole, 1e-9)
        found.append(replace(each, retention=kept))
    return found


def with_forecast(scores: Sequence[PairScores], expected: Sequence[PairScores]) -> list[PairScores]:
    """`scores` with what was `expected` of each pair beside them."""
    known = {each.pair: each.retention for each in expected}
    return [replace(each, forecast=known.get(each.pair)) for each in scores]


def advised(scores: Sequence[PairScores]) -> PairScores | None:
    """The pair to take: of those within two points of the best retention the one with fewest layers, then dims.

    Without retention it is the smallest; without scores there is none.
    """
    known = [each for each in scores if each.retention is not None]
    best = max((each.retention or 0.0 for each in known), default=0.0)
    near = [each for each in known if (each.retention or 0.0) >= best - _NEAR] or scores
    return min(near, key=lambda each: (each.layers, each.dim), default=None)


def found_again(
    queries: Vectors,
    documents: Vectors,
    sources: Sequence[int],
    measure: str = "cosine",
    owners: Sequence[int] | None = None,
) -> float:
    """Mean nDCG@10 of queries that have one relevant document each, in row `sources` of `documents`."""
    return float(gains(queries, documents, sources, measure, owners).mean())


def gains(
    queries: Vectors,
    documents: Vectors,
    sources: Sequence[int],
    measure: str = "cosine",
    owners: Sequence[int] | None = None,
) -> Vectors:
    """The nDCG@10 of each query; other rows that `owners` says are of its own document do not count.

    Of documents that are equally near, the first comes first: a query without a vector finds nothing by luck.
    """
    if measure == "cosine":
        queries, documents, measure = unit(queries), unit(documents), "dot"
    order, found = np.arange(len(documents)), []
    owner = order if owners is None else np.asarray(owners)
    for query, source in zip(queries, sources, strict=True):  # one by one: a corpus may be large
        [near] = similarities(query[None], documents, measure)
        nearer = (near > near[source]) | ((near == near[source]) & (order < source))
        ahead = (nearer & (owner != source)).sum()
        found.append(1 / np.log2(ahead + 2) if ahead < _CUT else 0.0)
    return np.asarray(found)
