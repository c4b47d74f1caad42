"""That the page's query vectors are the encoder's."""

from __future__ import annotations

from collections.abc import Sequence

from emb.errors import ArtifactError
from emb.runtime.encoder import Encoder
from emb.search.web.table import Table
from emb.similarity import cosines, truncated

_TEXTS = 200
_WORDS = 12  # of a document that stand for a query
_COSINE = 0.999


def require_same_vectors(encoder: Encoder, table: Table, documents: Sequence[str]) -> float:
    """The least cosine between vectors from the `table` and the encoder's own, of the first words of `documents`.

    Raises:
        ArtifactError: they differ; the encoder does more than to look up rows.
    """
    asked = [" ".join(each.split()[:_WORDS]) for each in documents[:: max(1, len(documents) // _TEXTS)]]
    ids = encoder.tokenizer.encode(asked, encoder.prompt("query"))
    known = [row for row, each in enumerate(ids) if len(each)]
    theirs = truncated(encoder.encode([asked[row] for row in known], kind="query"), table.rows.shape[1])
    ours = table.encode([ids[row] for row in known], normalize=True)
    least = float(cosines(theirs, ours).min()) if known else 1.0
    if least < _COSINE:
        raise ArtifactError(
            f"the page's vectors are not the query encoder's (cosine {least:.4f})",
            "the encoder does more than add up the rows of tokens; export one with emb export --layers 0",
        )
    return least
