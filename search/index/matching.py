"""Whether a query encoder's vectors belong to those of an index."""

from __future__ import annotations

from pathlib import Path

from emb.errors import ArtifactError
from emb.progress import warn
from emb.runtime.encoder import Encoder
from emb.search.index.description import EncoderRecord, Layout
from emb.search.origins import origins, sources
from emb.search.sides import query_encoder, query_folder

_ANYWAY = "take it as it is with --any-encoder"


def fitting_encoder(
    query: str | Path | Encoder,
    documents: EncoderRecord,
    layout: Layout,
    *,
    model: Path | None = None,
    any_encoder: bool,
) -> Encoder:
    """The encoder of queries that `query` names, or is, held against that of the documents; `model` is the folder of
    one that is loaded and does not know it.

    Raises:
        ArtifactError: no model there, or one that does not fit.
    """
    folder = folder_of(query, model)
    encoder = query if isinstance(query, Encoder) else query_encoder(query)
    require_fitting(encoder, documents, layout)
    require_same_space(encoder, folder, documents, any_encoder=any_encoder)
    return encoder


def folder_of(query: str | Path | Encoder, model: Path | None) -> Path | None:
    """The folder of the encoder of queries that `query` names, or is; None for one that nobody knows a folder of.

    Raises:
        ArtifactError: no model there.
    """
    if not isinstance(query, Encoder):
        return query_folder(query)
    return model or (query_folder(query.folder) if query.folder else None)


def require_fitting(encoder: Encoder, documents: EncoderRecord, layout: Layout) -> None:
    """Hold a query encoder's vectors against those of the documents, by their form.

    Raises:
        ArtifactError: another dim; no option takes those.
    """
    least = documents.dim if layout.rotate else layout.dim or documents.dim
    if encoder.dim > documents.dim or encoder.dim < least:
        why = "its rotation takes whole vectors" if layout.rotate and layout.dim else f"the index keeps {least}"
        raise ArtifactError(
            f"the query encoder has {encoder.dim} dims, the documents' encoder {documents.dim}; {why}",
            "search with an encoder of the same vector space, exported at that dim",
        )


def require_same_space(
    encoder: Encoder, folder: Path | None, documents: EncoderRecord, *, any_encoder: bool = False
) -> None:
    """Hold a query encoder against that of the documents: normalisation, similarity and origin.

    Raises:
        ArtifactError: they differ, or the folder is of an unknown origin; `any_encoder` makes it a warning.
    """
    for difference in _differences(encoder, folder, documents):
        if not any_encoder:
            raise ArtifactError(difference, f"search with {documents.name}, or a student of it; {_ANYWAY}")
        warn(difference)


def _differences(encoder: Encoder, folder: Path | None, documents: EncoderRecord) -> list[str]:
    found = []
    if encoder.normalize != documents.normalize:
        lengths = {True: "of length 1", False: "of any length"}
        ours, theirs = lengths[encoder.normalize], lengths[documents.normalize]
        found.append(f"the query encoder's vectors are {ours}, the documents' {theirs}")
    if encoder.similarity_fn_name != documents.similarity:
        found.append(
            f"the query encoder compares by {encoder.similarity_fn_name}, the documents' encoder by"
            f" {documents.similarity}"
        )
    return found + (_strangeness(folder, documents) if folder else [])


def _strangeness(folder: Path, documents: EncoderRecord) -> list[str]:
    """Why the folder is not known to share the documents' vector space: one sentence, or none."""
    if origins(folder) & set(documents.origins):
        return []
    if sources(folder):
        return [f"{folder}: made from another model than {documents.name}, which encoded the documents"]
    return [f"{folder}: not {documents.name}, which encoded the documents, and not known to be made from it"]
