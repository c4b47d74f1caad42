"""A static query encoder as the page runs it, and that its vectors are the encoder's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emb.errors import ArtifactError
from emb.runtime.encoder import Encoder
from emb.search.web.side import TABLE, QuerySide
from emb.search.web.table import Table, read_rows
from emb.search.web.tokenizer import page_tokenizer
from emb.similarity import cosines, truncated

_TEXTS = 200
_WORDS = 12  # of a document that stand for a query
_COSINE = 0.999


def static_side(encoder: Encoder, folder: Path, dim: int, documents: Sequence[str]) -> QuerySide:
    """The first `dim` dims of a static `encoder`, which lies in `folder`, tried on the beginnings of `documents`.

    Raises:
        ArtifactError: an encoder, or a tokenizer, that the page cannot run.
    """
    table = Table.of(read_rows(folder)[:, :dim])
    tokenizer = page_tokenizer(encoder.tokenizer, encoder.prompt("query"))
    return QuerySide(
        TABLE,
        tokenizer,
        {"table": ("table.bin", table.content())},
        dim,
        encoder.normalize or encoder.similarity_fn_name == "cosine",
        require_same_vectors(encoder, table, documents),
        facts={"tokens": len(table.rows)},
    )


def require_same_vectors(encoder: Encoder, table: Table, documents: Sequence[str]) -> float:
    """The least cosine between vectors from the `table` and the encoder's own, of the first words of `documents`.

    Raises:
        ArtifactError: they differ; the encoder does more than to look up rows.
    """
    asked = openings(documents, _TEXTS)
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


def openings(documents: Sequence[str], count: int) -> list[str]:
    """The first words of about `count` of the documents, which are read as queries."""
    return [" ".join(each.split()[:_WORDS]) for each in documents[:: max(1, len(documents) // count)]]
