"""A fine-tuned sibling of the model that was adapted, with the same vocabulary and without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from emb.errors import ArtifactError
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.similarity import Vectors
from emb.vocabulary.adaptation.adapt import DEV, Adapted, Job
from emb.vocabulary.choose_rows import InitScore, write_best
from emb.vocabulary.extend import Extended
from emb.vocabulary.proof import ExtensionProof, TrimProof, prove_extension, prove_trim
from emb.vocabulary.propagate import propagated_rows
from emb.vocabulary.reading import read
from emb.vocabulary.surgery import embedding_of, fixed_ids, replace_vocabulary, table_of, tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.trim import trim

_READ_BY = ("model", "added_tokens", "normalizer", "pre_tokenizer")  # of tokenizer.json: what tokens a text has


def require_sibling(base: EmbeddingModel, sibling: EmbeddingModel, name: str | Path) -> None:
    """Hold that `sibling` reads texts as `base` does, and has rows as wide.

    Raises:
        ArtifactError: it does not.
    """
    hint = "name a model that was tuned from the one adapted, and has its tokenizer"
    ours, theirs = tokenizer_json(base), tokenizer_json(sibling)
    for part in _READ_BY:
        if ours.state.get(part) != theirs.state.get(part):
            raise ArtifactError(f"--propagate-to {name}: another tokenizer ({part} differs)", hint)
    widths = embedding_of(base).embedding_dim, embedding_of(sibling).embedding_dim
    if widths[0] != widths[1]:
        raise ArtifactError(f"--propagate-to {name}: rows of {widths[1]} numbers, the model's have {widths[0]}", hint)


def propagate(job: Job, found: Adapted, sibling: EmbeddingModel) -> Adapted:
    """Give `sibling`, in place, the vocabulary that the model of `job` was `found` to have.

    Rows of new tokens come from that model's by the way that leaves the sibling's own vectors of held-out texts most
    as they were.

    Raises:
        ArtifactError: the sibling needs other tokens than were kept.
        GateFailed: what must hold of the result does not.
    """
    proof = _trimmed(job, found, sibling) if job.options.trims else None
    if found.extended is None:
        return Adapted(sibling, found.kept, [], proof, None, None, ())
    way, scores, extension = _extended(job, found, found.extended, sibling)
    return Adapted(sibling, found.kept, found.added, proof, extension, way, scores)


def _trimmed(job: Job, found: Adapted, sibling: EmbeddingModel) -> TrimProof:
    before, source = read(sibling, job.held_out), tokenizer_json(sibling)
    trimmed = trim(source, found.kept, fixed_ids(sibling))
    if other := sorted(set(trimmed.kept) - set(found.kept)):
        names = ", ".join(source.tokens[index] for index in other[:5])
        raise ArtifactError(f"the sibling's config needs {names}, which the model does without", "--keep them")
    replace_vocabulary(sibling, trimmed.tokenizer, trimmed.kept)
    return prove_trim(before, sibling, trimmed.kept)


def _extended(
    job: Job, found: Adapted, extended: Extended, sibling: EmbeddingModel
) -> tuple[str, list[InitScore], ExtensionProof]:
    before, source = read(sibling, job.held_out), tokenizer_json(sibling)
    ids, rows = sorted(source.tokens), _rows(found.model)
    new_ids = range(len(ids), len(ids) + len(found.added))
    new = rows[new_ids.start : new_ids.stop]
    made = propagated_rows(rows[: len(ids)], _rows(sibling)[ids], new, _pieces(source, extended))
    replace_vocabulary(sibling, extended.tokenizer, ids, torch.from_numpy(new))
    way, scores = write_best(sibling, new_ids, made, before.first(DEV))
    note("propagated rows: " + ", ".join(f"{each.method} {each.cosine:.4f}" for each in scores) + f"; {way} is taken")
    return way, scores, prove_extension(before, sibling, new_ids, job.options.min_cosine)


def _rows(model: EmbeddingModel) -> Vectors:
    return np.asarray(table_of(model).detach().cpu().float().numpy())


def _pieces(source: TokenizerJson, extended: Extended) -> list[list[int]]:
    """Where each new token's former ids stand among all of these, ascending."""
    places = {index: place for place, index in enumerate(sorted(source.tokens))}
    return [[places[index] for index in extended.pieces(source, token)] for token in extended.added]
