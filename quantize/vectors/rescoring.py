"""Search in two passes: codes in memory choose candidates, finer vectors from disk put them in order.

The small codes are all that has to stay in memory; of the fine vectors only the candidates' rows are read (the two
stores of BiDR, Xiao et al. 2022, arXiv 2201.05409, in one collection).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emb.errors import UsageError
from emb.quantize.vectors.base import Codec, Codes
from emb.similarity import Vectors

DEPTH = 100  # candidates


@dataclass(frozen=True)
class Stored:
    """Documents as a codec stores them; `codes` `(documents, width)` may be memory-mapped."""

    codec: Codec
    codes: Codes


def search(
    queries: Vectors,
    documents: Stored,
    k: int = 10,
    *,
    rescore: Stored | None = None,
    depth: int = DEPTH,
    query_codec: Codec | None = None,
) -> tuple[Vectors, Vectors]:
    """The `k` best documents of each query, best first: their rows `(queries, k)` and their scores `(queries, k)`.

    Args:
        queries: float vectors `(queries, dim)`.
        documents: what is searched through.
        k: fewer where there are fewer documents.
        rescore: the same documents, in the same order, stored more finely.
        depth: documents taken from the first pass to be rescored, at least `k`.
        query_codec: what the queries are coded with in the first pass, the codec of the documents or another in
            their space; None leaves them float, which finds more and costs as much.

    Raises:
        UsageError: queries of another dim, or `rescore` holds other documents.
    """
    coded = query_codec.decode(query_codec.encode(queries)) if query_codec else queries
    scores = documents.codec.scores(coded, documents.codes)
    if rescore is None:
        return _best(scores, k)
    if len(rescore.codes) != len(documents.codes):
        raise UsageError(
            f"{len(documents.codes):,} coded documents and {len(rescore.codes):,} to rescore with",
            "encode the same texts with both codecs",
        )
    # In the order of the documents, for what ties in the second pass.
    rows = np.sort(_best(scores, max(depth, k))[0], axis=1)
    order, found = _best(_rescored(queries, rescore, rows), k)
    return np.take_along_axis(rows, order, 1), found


def _rescored(queries: Vectors, fine: Stored, rows: Vectors) -> Vectors:
    return np.concatenate(
        [
            fine.codec.scores(query[None], fine.codes[candidates])
            for query, candidates in zip(queries, rows, strict=True)
        ]
    )


def _best(scores: Vectors, k: int) -> tuple[Vectors, Vectors]:
    # Documents of equal score stay in their order, as sign bits often give: results must not depend on the machine.
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, 1)
