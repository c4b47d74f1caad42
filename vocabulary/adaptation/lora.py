"""Adapters by peft: low-rank updates of every linear layer of an encoder, and rows of new tokens.

LoRA is Hu et al. 2021 (arXiv 2106.09685); that all linear layers get one, and not attention alone, is what QLoRA found
to matter most (arXiv 2305.14314, section 4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from emb.errors import UsageError
from emb.files import atomic_folder
from emb.model.embedding_model import EmbeddingModel, layer_stack
from emb.model.static import StaticEncoder
from emb.vocabulary.adaptation.adapter_rows import look_up_new_rows
from emb.vocabulary.adaptation.extra import adapt_extra

ADAPTER = "default"  # peft's name for the only one


def adapt(model: EmbeddingModel, new_ids: Sequence[int], layers: int, *, rank: int, alpha: int) -> Any:
    """Put an adapter into the encoder, in place, and leave nothing else to train; returns peft's model around it.

    Args:
        model: in floats, or with linear layers in 4 bits.
        new_ids: rows of the token table that are trained whole; none may be given.
        layers: the deepest exit that is trained. Layers above it get no update, since nothing would teach them.
        rank: of each update; `alpha / rank` is the factor before it.

    Raises:
        MissingExtra: peft is not installed.
        UsageError: a static encoder, which has no linear layers, or an id beyond the table.
    """
    with adapt_extra():
        from peft import LoraConfig, get_peft_model
    if isinstance(model.encoder, StaticEncoder):
        raise UsageError(
            "a static encoder has no layers to put an adapter into", "its rows are trained as a whole: `emb distill`"
        )
    _refuse_unknown(model, new_ids)
    model.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        exclude_modules=_above(model, layers),
        trainable_token_indices=sorted({int(each) for each in new_ids}) or None,
    )
    with adapt_extra():
        adapted = get_peft_model(model.encoder, config)
    look_up_new_rows(model.encoder)
    return adapted


def save_adapter(adapted: Any, folder: Path, base: str) -> None:
    """Write the adapter as peft does: `adapter_model.safetensors` and `adapter_config.json`; `base` names its model."""
    adapted.peft_config[ADAPTER].base_model_name_or_path = base
    with atomic_folder(folder, replace=True) as partial:
        # Asked to decide by itself, peft looks for the base model on the hub.
        adapted.save_pretrained(partial, save_embedding_layers=False)


def with_adapter(model: EmbeddingModel, adapter: Path) -> Any:
    """Put a saved adapter into the encoder, in place, to be used or merged; returns peft's model around it."""
    with adapt_extra():
        from peft import PeftModel

        return PeftModel.from_pretrained(model.encoder, str(adapter))


def adapter_tensors(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained of an adapted encoder, by name."""
    return {name: each for name, each in encoder.named_parameters() if each.requires_grad}


def is_row(name: str) -> bool:
    """Whether a trained tensor holds rows of new tokens, by its name."""
    return "trainable_tokens" in name


def _refuse_unknown(model: EmbeddingModel, new_ids: Sequence[int]) -> None:
    table: Any = model.encoder.get_input_embeddings()
    rows = table.weight.shape[0]
    beyond = [each for each in new_ids if not 0 <= each < rows]
    if beyond:
        raise UsageError(
            f"token {beyond[0]} is new, and the token table has {rows:,} rows", "give ids of rows that are there"
        )


def _above(model: EmbeddingModel, layers: int) -> str | None:
    """A pattern of the names of all modules in layers above the `layers`-th; None where there are none."""
    owner, attribute, stack = layer_stack(model.encoder)
    if layers >= len(stack):
        return None
    [place] = [name for name, module in model.encoder.named_modules() if module is owner]
    prefix = re.escape(".".join(part for part in (place, attribute) if part))
    return rf"{prefix}\.({'|'.join(str(number) for number in range(layers, len(stack)))})\..*"
