"""Cutting a model to one (layers, dim) pair."""

from __future__ import annotations

import copy

import torch
from torch import nn

from emb.artifact.manifest import LayerDimPair
from emb.model.dense import cut_head, is_linear
from emb.model.embedding_model import EmbeddingModel, cut_layers
from emb.model.static import StaticEncoder


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
