"""Which of the two ways the page runs a query encoder: rows of a table, or onnxruntime-web."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emb.errors import UsageError
from emb.runtime.encoder import Encoder
from emb.search.web.layered_side import layered_side
from emb.search.web.side import QuerySide
from emb.search.web.static_side import static_side
from emb.search.web.table import is_static


def query_side(
    encoder: Encoder, folder: Path, dim: int, documents: Sequence[str], runtime: Path | None = None
) -> QuerySide:
    """The first `dim` dims of `encoder`, which lies in `folder`, tried on the beginnings of `documents`.

    Args:
        runtime: where the npm package onnxruntime-web lies, a folder or the file of `npm pack`; None for emb's cache,
            which is filled from the registry.

    Raises:
        ArtifactError: an encoder, or a tokenizer, that the page cannot run.
        HubError: the runtime cannot be fetched.
        UsageError: a runtime for an encoder that needs none.
    """
    if not is_static(folder):
        return layered_side(encoder, folder, dim, documents, runtime)
    if runtime:
        raise UsageError("--onnxruntime-web: a static encoder runs without it", "leave it out")
    return static_side(encoder, folder, dim, documents)
