"""A page that searches by meaning in the browser: a folder of files, with no server behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emb.search.web.write import Page


def web(
    query: str | Path,
    documents: str | Path | Sequence[str | Path],
    doc: str | Path | None = None,
    *,
    out: str | Path = "web",
    field: str = "text",
    dim: int | None = None,
    codec: str = "int8",
    snippet: int = 300,
    title: str | None = None,
    onnxruntime_web: str | Path | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Page:
    """Write a folder that searches `documents` in the browser; any server of files serves it, under any path.

    Args:
        query: a static encoder (0 layers), the export of one with layers, a run that has a static one, or a bundle.
        documents: files and folders of documents; of a BEIR folder its corpus. Equal ones count once.
        doc: the encoder of the documents, a model folder or a bundle; None for that of a bundle given as `query`.
        out: the folder.
        field: column or key that holds the text.
        dim: dimensions to keep; None for all that the query encoder has.
        codec: how the documents' vectors are stored: "int8", a byte a dimension, or "binary", a bit.
        snippet: characters of each text that the page holds and shows.
        title: of the page; None for the name of the documents' file.
        onnxruntime_web: where the npm package of that name lies, which an encoder with layers runs on: a folder, or the
            file of `npm pack`; None for emb's cache, which is filled from the registry.
        overwrite: replace what is in the way.
        trust_remote_code: let a model's repository run code of its own.

    Returns:
        What was written, with the bytes that a browser fetches.

    Raises:
        ArtifactError: the query encoder has layers and was not exported, or a tokenizer that the page does not know, or
            does not share the documents' vector space.
        HubError: the runtime of an encoder with layers cannot be fetched.
        EmbError: whatever a user can mend; see `emb.errors`.
    """
    from emb.search.web.build import build
    from emb.search.web.write import Look

    sources = [str(each) for each in ([documents] if isinstance(documents, str | Path) else documents)]
    shown = title or f"Search {', '.join(Path(each).name.partition('.')[0] for each in sources)}"
    return build(
        Path(query),
        sources,
        None if doc is None else Path(doc),
        Path(out),
        field=field,
        dim=dim,
        codec=codec,
        look=Look(shown, snippet),
        runtime=None if onnxruntime_web is None else Path(onnxruntime_web),
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
