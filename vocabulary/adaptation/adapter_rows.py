"""Reading the rows of new tokens beside the table instead of inside a copy of it.

peft's own layer for trained token rows writes them into a copy of the whole table at each step and takes the gradient
of that copy: twice the table, which for 150,000 tokens is more than all the rest of a small model. Here the fixed
table is read as it is, and rows of new tokens are put in place of what was read. Vectors and gradients are the same.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn


def look_up_new_rows(encoder: nn.Module) -> None:
    """Let each of peft's layers for token rows in `encoder` read them beside the table, in place."""
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    for layer in encoder.modules():
        if isinstance(layer, TrainableTokensLayer):
            [name] = layer.token_indices
            layer.register_buffer("places", _places(layer, name), persistent=False)
            layer.forward = functools.partial(_read, layer, name)


def _places(layer: Any, name: str) -> Tensor:
    """For each id its place among the new rows, -1 for an old one: `(table rows,)`."""
    weight = layer.base_layer.weight
    places = torch.full((weight.shape[0],), -1, dtype=torch.int32, device=weight.device)
    new = torch.as_tensor(layer.token_indices[name], device=weight.device)
    places[new] = torch.arange(len(new), dtype=torch.int32, device=weight.device)
    return places


def _read(layer: Any, name: str, ids: Tensor) -> Tensor:
    known, places = layer.base_layer(ids), layer.places[ids]
    rows = nn.functional.embedding(places.clamp(min=0), layer.trainable_tokens_delta[name])
    scale = getattr(layer.base_layer, "embed_scale", None)  # Gemma's table scales what is read
    rows = rows if scale is None else rows * scale.to(rows.dtype)
    return torch.where((places >= 0).unsqueeze(-1), rows.to(known.dtype), known)
