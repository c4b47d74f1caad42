"""Attention masks that a tracer can follow."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, masking_utils

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@contextlib.contextmanager
def traceable_masks(encoder: PreTrainedModel) -> Iterator[None]:
    """Hand `encoder` its masks ready made, where it would make them with vmap, which the tracer does not know.

    That is Gemma 3 with attention in both directions (EmbeddingGemma); all other models keep making their own, by
    plain operations: transformers 4 would use vmap for them as well.
    """
    config = encoder.config
    if config.model_type != "gemma3_text" or not config.use_bidirectional_attention:
        with _plain_masks():
            yield
        return

    def give(module: Any, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, inputs | {
            "attention_mask": both_directions(inputs["attention_mask"], config.sliding_window, encoder.dtype)
        }

    handle = encoder.register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def both_directions(mask: Tensor, window: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """What is added to attention scores, by type of layer, from `mask` `(batch, tokens)`.

    "full_attention" `(batch, 1, 1, tokens)` hides padding; "sliding_attention" `(batch, 1, tokens, tokens)` also
    every token `window` or more places away.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    near = (places[:, None] - places[None, :]).abs() < window
    seen = {"full_attention": mask[:, None, None, :].bool(), "sliding_attention": mask[:, None, None, :].bool() & near}
    hidden = torch.finfo(dtype).min
    return {
        kind: torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, hidden)
        for kind, allowed in seen.items()
    }


@contextlib.contextmanager
def _plain_masks() -> Iterator[None]:
    # transformers 4 maps its masks over positions with vmap; 5 does so only where `use_vmap` asks for it.
    if "use_vmap" in inspect.signature(masking_utils.sdpa_mask).parameters:
        yield
        return
    replaced = {"_vmap_for_bhqkv": _broadcast, "TransformGetItemToIndex": contextlib.nullcontext}
    before = {name: getattr(masking_utils, name) for name in replaced}
    vars(masking_utils).update(replaced)
    try:
        yield
    finally:
        vars(masking_utils).update(before)


def _broadcast(mask: MaskFunction, bh_indices: bool = True) -> MaskFunction:
    """`mask` over all positions at once: indices `(batch,)`, `(heads,)`, `(queries,)`, `(keys,)` → bool `(batch, heads,
    queries, keys)`.
    """

    def over(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        found = mask(batch[:, None, None, None], head[:, None, None], query[:, None], key)
        return found.expand(batch.shape[0], head.shape[0], query.shape[0], key.shape[0])

    return over
