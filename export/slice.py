"""Cutting a model to one (layers, dim) pair."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from emb.artifact.manifest import Kind, LayerDimPair, Manifest
from emb.errors import UsageError
from emb.model.dense import cut_head, is_linear
from emb.model.embedding_model import EmbeddingModel, cut_layers
from emb.model.static import StaticEncoder
from emb.progress import warn


def resolve_pairs(
    model: EmbeddingModel, manifest: Manifest | None, layers: Sequence[int], dims: Sequence[int]
) -> list[LayerDimPair]:
    """Every combination of `layers` and `dims`; none given means the whole model.

    Raises:
        UsageError: beyond the model, or layers at which a student has no trained exit.
    """
    pairs = [
        LayerDimPair(n, dim)
        for n in sorted(set(layers or [model.exits[-1]]))
        for dim in sorted(set(dims or [model.dim]))
    ]
    for pair in pairs:
        _check(model, manifest, pair)
    return pairs


def slice_model(model: EmbeddingModel, pair: LayerDimPair) -> EmbeddingModel:
    """A model of `pair.layers` layers and `pair.dim` dims that shares `model`'s weights.

    Where no projection exists, the cut to fewer dims becomes one (the first rows of the identity), so that the
    saved folder returns the cut vectors in any client. A static model's linear projection goes into its table: the
    mean of projected rows is the projection of their mean, and the table gets as narrow as the vectors.
    """
    # Tensors in the memo are shared, not copied: a slice of a large model costs no memory.
    shared = {id(tensor): tensor for tensor in (*model.encoder.parameters(), *model.encoder.buffers())}
    encoder = copy.deepcopy(model.encoder, shared)
    head = model.heads[str(pair.layers if pair.layers in model.exits else model.exits[-1])]
    if isinstance(encoder, StaticEncoder) and is_linear(head):
        with torch.no_grad():
            rows = head(encoder.embedding.weight)[:, : pair.dim].contiguous()
        return EmbeddingModel(StaticEncoder.from_rows(rows), model.hf_tokenizer, model.spec).eval()
    sliced = EmbeddingModel(encoder, model.hf_tokenizer, model.spec)
    if pair.layers < sliced.layers:
        cut_layers(sliced, range(pair.layers))
    sliced.heads = nn.ModuleDict({str(pair.layers): cut_head(head, pair.dim, model.hidden)})
    return sliced.eval()


def _check(model: EmbeddingModel, manifest: Manifest | None, pair: LayerDimPair) -> None:
    if not 1 <= pair.dim <= model.dim:
        raise UsageError(f"dim {pair.dim}: the model has {model.dim} dims", f"choose 1 to {model.dim}")
    if not min(1, model.layers) <= pair.layers <= model.layers:
        raise UsageError(f"layers {pair.layers}: the model has {model.layers}", f"choose from {_names(model)}")
    if manifest is None or manifest.kind != Kind.STUDENT:
        if pair.layers not in model.exits:
            warn(
                f"{pair}: nothing was trained after layer {pair.layers}; distil a student with this exit to heal"
                " the cut"
            )
        return
    if pair.layers not in model.exits:
        raise UsageError(
            f"layers {pair.layers}: not trained as an exit",
            f"trained: {_names(model)}; others need a pair in the recipe and a new run",
        )
    trained = max((each.dim for each in manifest.pairs if each.layers == pair.layers), default=model.dim)
    if pair.dim > trained:
        warn(f"{pair}: the exit at {pair.layers} layers was trained up to {trained} dims")


def _names(model: EmbeddingModel) -> str:
    return ", ".join(map(str, model.exits)) if len(model.exits) > 1 or not model.layers else f"1 to {model.layers}"
