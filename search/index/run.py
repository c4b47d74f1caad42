"""One run of `emb index`: the encoder, a new index or the one that is there, and its figures at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emb.artifact.fingerprints import weights_hash
from emb.errors import ArtifactError, UsageError
from emb.runtime.encoder import Encoder
from emb.search.index import Indexed
from emb.search.index.build import Built, begin, change, is_index, require_own, with_lock
from emb.search.index.description import Description, EncoderRecord, Layout, home
from emb.search.index.documents import Columns
from emb.search.index.quality import judge
from emb.search.index.reader import Index
from emb.search.known_vectors import KnownVectors
from emb.search.origins import origins
from emb.search.sides import document_encoder, document_folder, shared_dim


@dataclass(frozen=True)
class Choices:
    """What a run was asked for: sources, columns, ids to remove, and what of the layout was named."""

    documents: Sequence[str]
    columns: Columns = field(default_factory=Columns)
    delete: Sequence[str] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)


def run(folder: Path, choices: Choices, model: str | Path | None, options: Mapping[str, Any]) -> Indexed:
    """Open the encoder and bring the index at `folder` up to date; `emb.index` describes it."""
    if not choices.documents and not choices.delete:
        raise UsageError("nothing to index", "give files of documents, or ids to remove with --delete")
    if not choices.documents:
        return index_with(folder, choices, None, None)
    if model is None:
        raise UsageError("no encoder for the documents", "name one with --doc MODEL")
    encoder = document_encoder(model, **options)
    dim = choices.layout.get("dim") or shared_dim(model)
    choices = replace(choices, layout={**choices.layout, "dim": dim})
    done = index_with(folder, choices, encoder, record_of(encoder, document_folder(model)))
    if isinstance(encoder, KnownVectors):
        encoder.tell()
    return done


def record_of(encoder: Encoder, folder: Path) -> EncoderRecord:
    """What an index notes of its documents' encoder."""
    return EncoderRecord(
        name=folder.resolve().name,
        fingerprint=weights_hash(folder),
        origins=sorted(origins(folder)),
        dim=encoder.dim,
        normalize=encoder.normalize,
        similarity=encoder.similarity_fn_name,
        prompts=dict(encoder.prompts),
        max_length=encoder.max_length,
    )


def index_with(folder: Path, choices: Choices, encoder: Encoder | None, record: EncoderRecord | None) -> Indexed:
    """Bring the index at `folder` up to date with an encoder that is loaded; None to remove documents only.

    Raises:
        ArtifactError: an index of another encoder, or none where documents are to be removed.
    """
    if record is None:
        Description.load(folder)
    require_own(folder)  # before a lock lies in it
    built = with_lock(folder, lambda: _changed(folder, choices, encoder, record))
    with Index(folder) as opened:
        return Indexed(folder, len(opened), **vars(built.counts), truncated=built.truncated, quality=judge(opened))


def _changed(folder: Path, choices: Choices, encoder: Encoder | None, record: EncoderRecord | None) -> Built:
    description = _description(folder, choices, record)
    columns = replace(choices.columns, metadata=description.layout.metadata)
    return change(home(folder), description, encoder, choices.documents, columns, choices.delete)


def _description(folder: Path, choices: Choices, record: EncoderRecord | None) -> Description:
    if record is not None and not is_index(folder):
        asked = {name: value for name, value in choices.layout.items() if value is not None}
        return begin(folder, record, Layout(**asked))
    known = Description.load(folder)
    if record is not None and record.fingerprint != known.encoder.fingerprint:
        raise ArtifactError(
            f"{folder}: its documents were encoded by {known.encoder.name}, this is another model ({record.name})",
            "index with that one, or build another index with --out",
        )
    dim = choices.layout.get("dim")  # that of a bundle, too: as many as there are is what was begun without a word
    known.layout.given(**{**choices.layout, "dim": None if dim == known.space.dim else dim})
    return known
