"""A query encoder and the encoder of its documents as one folder, checked to share a space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emb.errors import needs_extra


def bundle(
    query: str | Path,
    doc: str | Path | None = None,
    *,
    out: str | Path | None = None,
    query_file: str | None = None,
    document_file: str | None = None,
    doc_candidates: Sequence[str | Path] = (),
    data: Sequence[str | Path] = (),
    max_texts: int = 300,
    min_cosine: float = 0.99,
    min_overlap: float = 0.95,
    threads: int | None = None,
    device: str | None = None,
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
        doc_candidates: exports of `doc`; with `data`.
        data: documents like those that will be indexed, or a BEIR folder. How many a second `doc` encodes is measured
            on them, in torch, in 16 bits where the processor gains from it, by its own files and by those of
            `doc_candidates`; the fastest that loses little becomes the documents' encoder. None: `doc` as it is.
        max_texts: how many documents are measured on.
        min_cosine: smallest cosine to the vector of `doc` in torch that a document may have.
        min_overlap: smallest share of the ten documents that the queries find among the vectors of `doc` which they
            must find among the candidate's.
        threads: to compute with; None for all.
        device: where documents are encoded; None for a GPU where there is one.
        copy: put the documents' model inside; otherwise its place and fingerprint are written down.
        router: write `router/` too, a folder that `SentenceTransformer` opens by itself, both models inside; needs
            the extra `train`.
        overwrite: replace what is in the way.
        trust_remote_code: let a model's repository run code of its own.

    Returns:
        The folder.

    Raises:
        ArtifactError: the two do not share a space, or a candidate is no export of `doc`.
        EmbError: whatever a user can mend; see `emb.errors`.
    """
    with needs_extra():
        from emb.search.bundling.choice import Limits
        from emb.search.bundling.documents import Trial
        from emb.search.bundling.write import write_bundle

    trial = Trial(
        [Path(each) for each in doc_candidates],
        [str(each) for each in data],
        max_texts,
        Limits(min_cosine, min_overlap),
        device,
    )
    return write_bundle(
        query,
        doc,
        None if out is None else Path(out),
        files=(query_file, document_file),
        trial=trial,
        threads=threads,
        copy=copy,
        router=router,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
