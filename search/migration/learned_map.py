"""A map learned from queries that both encoders read: new queries find old vectors in the order of old queries.

No document has to be encoded for it. Maps that are fitted to documents bring a document near its new vector; what a
search loses by them is the order of near ones, which old queries know.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from emb.errors import UsageError
from emb.progress import note
from emb.runtime.encoder import Encoder
from emb.search.index.asked import cut_from
from emb.search.index.description import Description
from emb.search.index.learned_order import descended, order_of
from emb.search.index.reader import Index
from emb.search.index.space import Space
from emb.search.migration.maps import LinearMap, Moments, procrustes
from emb.similarity import Vectors, unit

LEARNED = "learned"


def learned_from(
    index: Index, documents: Vectors, query: Encoder, space: Space, without: Collection[str]
) -> LinearMap | None:
    """Read pseudo-queries of an index that was opened with its query encoder by that and by the new one, `query`, whose
    vectors go into `space`, and learn the map for `documents` `(documents, old dim)`; None, with a note, of too few.

    The texts `without` teach nothing.
    """
    assert index.encoder is not None
    with index.state() as state:
        texts, before = cut_from(index.connection, "the map", without), state.space
    if texts is None:
        return None
    note(f"{len(texts):,} pseudo-queries, which both query encoders read, to learn a map")
    old, new = (
        side.apply(np.asarray(encoder.encode(texts, kind="query", show_progress_bar=True), np.float32))
        for encoder, side in ((index.encoder, before), (query, space))
    )
    return learn_map(old, new, documents)


def learn_map(old: Vectors, new: Vectors, documents: Vectors, seed: int = 0) -> LinearMap:
    """The map of `documents` `(documents, old dim)` behind which queries `new` `(queries, new dim)` find them in the
    order in which the same queries `old` `(queries, old dim)` do; queries are of length 1.

    It begins as the rotation that takes the old queries to the new ones.
    """
    ones = np.ones((len(documents), 1), np.float32)
    start = procrustes(Moments.of(old, new)).matrix
    order, random = order_of(old, unit(documents)), np.random.default_rng(seed)
    return LinearMap(LEARNED, descended(new, order, np.concatenate([documents, ones], axis=1), start, random))


def require_directions(*sides: Description) -> None:
    """Make sure that both spaces compare vectors by their directions.

    Raises:
        UsageError: one does not.
    """
    for each in sides:
        if not each.space.length_one:
            raise UsageError(
                f"--old: a learned map keeps directions alone, and the {each.space.measure} similarity of"
                f" {each.encoder.name} needs lengths",
                "leave it out",
            )
