"""Whether two encoders give vectors of one space: by what their folders say, and by trying."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from emb.artifact.bundle import SpaceRecord
from emb.artifact.manifest import Manifest, is_artifact
from emb.errors import ArtifactError
from emb.progress import warn
from emb.runtime.encoder import Encoder
from emb.search.bundling.ranking import cut
from emb.search.origins import origins, sources
from emb.similarity import cosines

_TEXTS = (
    "how to repair a flat bicycle tyre",
    "the parliament passed a law on fishing rights",
    "symptoms of iron deficiency in children",
    "a short history of the printing press",
    "why do stars twinkle at night",
    "recipe for bread without yeast",
    "the orchestra played the second symphony",
    "supersonic flow over a slender wing",
    "what is the capital of Australia",
    "interest rates and the price of houses",
    "the dog slept beside the fire all afternoon",
    "gene expression in the liver of mice",
    "how to reset a forgotten password",
    "rules for offside in football",
    "the river flooded the old town in spring",
    "sorting a list of numbers in Python",
    "vaccination lowers the risk of measles",
    "a treaty that ended a long war",
    "growing tomatoes on a balcony",
    "the painter's late self-portraits",
    "how earthquakes are measured",
    "train tickets to the airport",
    "bees and the pollination of almonds",
    "learning to play the violin as an adult",
)
_FOUND = 0.3  # of the texts must find themselves where nothing else is known; between two spaces it is one of all


def check_space(query: Encoder, document: Encoder, folders: tuple[Path, Path]) -> SpaceRecord:
    """Hold that documents of `document` can be searched with queries of `query`, which lie in `folders`.

    Raises:
        ArtifactError: they compare otherwise, have too few dims, or vectors of another space.
    """
    require_fit(query, document, folders)
    record = _tried(query, document, _proven(*folders))
    if not record.proven and record.found < _FOUND:
        raise ArtifactError(
            f"queries and documents are of two spaces: of {record.texts} texts {record.found:.0%} find themselves",
            "name the model that the query encoder was distilled from, rotated if that was",
        )
    if not record.proven:
        warn(
            f"{folders[0].name}: does not name {folders[1].name} as its teacher; tried on {record.texts} texts,"
            f" {record.found:.0%} find themselves (mean cosine {record.cosine:.2f})"
        )
    return record


def require_fit(query: Encoder, document: Encoder, folders: tuple[Path, Path]) -> None:
    """Hold that both make vectors of one kind, of documents that are written alike.

    Raises:
        ArtifactError: they compare or normalise otherwise, documents have too few dims, or another prompt.
    """
    _require_same(query, document)
    if query.dim > document.dim:
        raise ArtifactError(
            f"queries have {query.dim} dims, documents {document.dim}",
            f"export the query encoder at {document.dim} dims or fewer",
        )
    ours, theirs = (each.prompt("document") for each in (query, document))
    if ours != theirs and (ours or _names_teacher(folders[0])):
        raise ArtifactError(
            f"{folders[1]}: its documents stand behind {theirs!r}; the query encoder was made for documents behind"
            f" {ours!r}",
            f'write "prompts": {{"document": {json.dumps(ours)}, …}} into its config_sentence_transformers.json, and of'
            " an export, export it again",
        )


def _names_teacher(folder: Path) -> bool:
    """Whether a query encoder has its teacher's prompts: then none is one too."""
    return is_artifact(folder) and Manifest.load(folder).lineage.teacher is not None


def _require_same(query: Encoder, document: Encoder) -> None:
    for name, ours, theirs in (
        ("are compared by", query.similarity_fn_name, document.similarity_fn_name),
        ("are normalised:", query.normalize, document.normalize),
    ):
        if ours != theirs:
            raise ArtifactError(
                f"vectors of queries {name} {ours}, those of documents {theirs}", "export both from one teacher"
            )


def _tried(query: Encoder, document: Encoder, proven: bool) -> SpaceRecord:
    texts = list(_TEXTS)
    queries = query.encode(texts, kind="query")
    documents = cut(document.encode(texts, kind="document"), query.dim, query.normalize)
    scores = query.similarity(queries, documents)
    found = float((scores.argmax(axis=1) == np.arange(len(texts))).mean())
    return SpaceRecord(len(texts), found, float(cosines(queries, documents).mean()), proven)


def _proven(query: Path, document: Path) -> bool:
    """Whether the query encoder was distilled from these weights, or from those that the document encoder was
    exported from.
    """
    return query == document or bool(sources(query) & origins(document))
