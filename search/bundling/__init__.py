"""A query encoder and the encoder of its documents as one folder, checked to share a space."""

from __future__ import annotations

from pathlib import Path

from emb.errors import needs_extra


def bundle(
    query: str | Path,
    doc: str | Path | None = None,
    *,
    out: str | Path | None = None,
    query_file: str | None = None,
    document_file: str | None = None,
    copy: bool = False,
    router: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Put a query encoder and the encoder of the documents into one folder, which `emb.load` opens as one encoder.

    Args:
        query: an export, a student or any model folder or name; of a run, its student.
        doc: the model that encodes documents, in torch or exported; None for the one that `query` was distilled
            from.
        out: the folder; None means `bundles/<query>`.
        query_file, document_file: of an export the file to use, by its path in the folder; None for the smallest that
            passed its gate.
        copy: put the documents' model inside; otherwise its place and fingerprint are written down.
        router: write `router/` too, a folder that `SentenceTransformer` opens by itself, both models inside; needs
            the extra `train`.
        overwrite: replace what is in the way.
        trust_remote_code: let a model's repository run code of its own.

    Returns:
        The folder.

    Raises:
        ArtifactError: the two do not share a space.
        EmbError: whatever a user can mend; see `emb.errors`.
    """
    with needs_extra():
        from emb.search.bundling.write import write_bundle

    return write_bundle(
        query,
        doc,
        None if out is None else Path(out),
        files=(query_file, document_file),
        copy=copy,
        router=router,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
