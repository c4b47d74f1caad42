"""A model whose linear layers are in NF4, by bitsandbytes: what an adapter is trained on where memory is short.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314), section 3: 4-bit NormalFloat in blocks of 64, the scales of the blocks
in 8 bits themselves. Token tables, norms and projections stay as they are.

On processors with AVX512-BF16, bitsandbytes rewrites a 4-bit weight in place for faster inference as soon as it meets
an input without gradient in a layer that is in eval mode: in the whole model when it is evaluated, and during training
in every layer that reads token rows which are not trained. The backward pass and merging read that layout wrongly. So
the 4-bit layers of a model in training stay in train mode, which changes nothing else about them, and what is
evaluated is a copy.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emb.errors import TrainingError
from emb.model.embedding_model import EmbeddingModel, load_changed, quiet
from emb.vocabulary.adaptation.extra import adapt_extra

_READING = threading.Lock()
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_LARGE = 1 << 17


def load_quantized(folder: Path, *, compute: torch.dtype, device: torch.device) -> EmbeddingModel:
    """The model in `folder`, its encoder's linear layers in NF4; products are made in `compute`.

    Never held whole in floats: a tensor is read, quantised and dropped before the next one is read.

    Raises:
        ArtifactError: not a model.
        MissingExtra: bitsandbytes is not installed.
    """
    with adapt_extra():
        import bitsandbytes  # noqa: F401 - transformers says less clearly that it is not there
        from transformers import BitsAndBytesConfig
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        # BERT's has no weights in our folders, and transformers 4 cannot quantise what is not there.
        llm_int8_skip_modules=["pooler"],
    )
    give_back_large_blocks()
    with _read_not_mapped():
        model = load_changed(folder, device=device, quantization_config=config, device_map={"": str(device)})
    keep_layout(model)
    return model


def load_dequantized(folder: Path) -> EmbeddingModel:
    """The same weights, rounded to NF4, as floats in ordinary layers on the CPU: what an adapter is merged into."""
    model = load_quantized(folder, compute=torch.float32, device=torch.device("cpu"))
    with quiet():
        model.encoder = model.encoder.dequantize()
    return model.float().eval()


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """The 4-bit layers, by name; none where the model has none."""
    # peft's layers show the weights of those that they stand around, and are no linear layers themselves.
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    return {name: layer for name, layer in layers.items() if hasattr(layer.weight, "quant_state")}


def keep_layout(model: nn.Module) -> None:
    """Put the 4-bit layers into train mode, whatever mode the rest is in: their weights are then not rewritten."""
    for layer in quantized_layers(model).values():
        layer.training = True


def refuse_rewritten(model: nn.Module) -> None:
    """Look whether a 4-bit weight was rewritten for inference.

    Raises:
        TrainingError: one was, and what is trained on it or merged into it is worth nothing.
    """
    for name, layer in quantized_layers(model).items():
        if getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
            raise TrainingError(
                f"{name}: its 4-bit weight was rewritten for inference during the training",
                "something evaluated the model that is being trained; train without QLoRA, or on a GPU",
            )


def evaluation_copy(model: EmbeddingModel) -> EmbeddingModel:
    """A copy to evaluate that costs no memory: rewriting one of its 4-bit weights gives that weight other bytes and
    leaves those of `model`; all other tensors are the same objects.
    """
    tensors = (*model.encoder.parameters(), *model.encoder.buffers())
    same: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    for layer in quantized_layers(model).values():
        weight, state = copy.copy(layer.weight), copy.copy(layer.weight.quant_state)
        weight.quant_state = state
        same |= {id(layer.weight): weight, id(layer.weight.quant_state): state, id(layer.quant_state): state}
    heads = {int(layers): head for layers, head in model.heads.items()}
    copied = EmbeddingModel(copy.deepcopy(model.encoder, same), model.hf_tokenizer, model.spec, heads)
    keep_layout(copied)
    return copied


def give_back_large_blocks() -> None:
    """Let glibc map blocks beyond 128 KB one by one, so that what is freed leaves the process at once.

    It begins with that limit, but raises it with each large block that is freed, and keeps what lies below. For a model
    of 126 million parameters, the peak of quantising it is then 120 MB higher, and that of training it 100 MB more.
    Other C libraries are left alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, _LARGE)


@contextlib.contextmanager
def _read_not_mapped() -> Iterator[None]:
    # transformers 5 maps all files until the last tensor is loaded, and mapped pages count as the process's own: the
    # floats would be held whole after all. safetensors reads tensor by tensor where it is asked to.
    loading: Any = importlib.import_module("transformers.modeling_utils")
    mapping = loading.safe_open

    def reading(*args: Any, **kwargs: Any) -> Any:
        return mapping(*args, **(kwargs | {"backend": "pread"} if "backend" in kwargs else kwargs))

    with _READING:  # the module is one for all threads
        loading.safe_open = reading
        try:
            yield
        finally:
            loading.safe_open = mapping
