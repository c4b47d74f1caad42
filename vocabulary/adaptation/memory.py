"""What training an adapter takes in memory, and whether a base in 4 bits takes less.

Peaks of processes that trained both ways (Qwen3's shape, CPU, batches of 128 tokens, activations recomputed), and what
is foretold here:

| layers × width, tokens | LoRA, MB | QLoRA, MB | saved | foretold |
| 6 × 384, 30,522 | 769 | 715 | 54 | 49 |
| 2 × 1024, 2,048 | 777 | 685 | 92 | 95 |
| 4 × 768, 30,522 | 924 | 791 | 133 | 131 |
| 28 × 1024, 2,048 | 2,614 | 1,047 | 1,567 | 1,534 |

QLoRA took 1.6 times as long. So what it saves is what the linear layers lose, and it is judged against the whole
process: of the first of these a fourteenth, which is not worth the time.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.vocabulary.adaptation.lora import adapter_tensors

_TRAINED = 16  # bytes of a trained number: itself, its gradient, two of AdamW's
_WORTH = 0.1  # of what plain LoRA takes, the process itself included


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        linear: of the encoder's linear layers, as they are held.
        linear_floats: of the same in float32.
        table: of all other weights, the token table above all.
        adapter: of what is trained, with gradients and the optimiser's states in float32.
        activations: of one batch, about: what the linear layers read and give.
        process: of the machine's memory before the model was loaded, for Python and the libraries; 0 on a GPU.
        peak: the largest resident set of this process so far, 0 where that is not known; `device_peak` of the GPU.
    """

    linear: int
    linear_floats: int
    table: int
    adapter: int
    activations: int
    process: int = 0
    peak: int = 0
    device_peak: int = 0

    @property
    def plain(self) -> int:
        """What LoRA on floats would take."""
        return self.process + self.linear_floats + self.table + self.adapter + self.activations

    @property
    def saved(self) -> int:
        """What 4 bits save of that."""
        return self.linear_floats - self.linear

    def measured(self) -> Memory:
        """The same with the peaks so far."""
        on_device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return dataclasses.replace(self, peak=peak_bytes(), device_peak=on_device)


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of(model: EmbeddingModel, tokens: int, *, recompute: bool, process: int = 0) -> Memory:
    """Of an adapted model and batches of so many `tokens`, in a process that took so many bytes before.

    With `recompute`, activations are those of one layer at a time.
    """
    linear = {id(layer.weight): layer for layer in _linear_layers(model.encoder)}
    others = [each for each in model.parameters() if id(each) not in linear and not each.requires_grad]
    passed = sum(4 * (layer.in_features + layer.out_features) for layer in linear.values()) * tokens
    return Memory(
        linear=sum(_held(layer) for layer in linear.values()),
        linear_floats=sum(4 * layer.in_features * layer.out_features for layer in linear.values()),
        table=sum(each.nbytes for each in others),
        adapter=_TRAINED * sum(each.numel() for each in adapter_tensors(model.encoder).values()),
        activations=passed // model.layers if recompute else passed,
        process=0 if torch.cuda.is_available() else process,
    )


def tell_worth(memory: Memory) -> None:
    """Say so where a base in 4 bits saves little."""
    if memory.saved < _WORTH * memory.plain:
        parts = (memory.linear_floats, memory.linear, memory.table, memory.adapter, memory.activations)
        linear, four, table, adapter, activations = (f"{part / 1e6:,.0f} MB" for part in parts)
        note(
            f"QLoRA saves about {memory.saved / 1e6:,.0f} of {memory.plain / 1e6:,.0f} MB here, and plain LoRA is"
            f" faster: linear layers are {linear} in floats and {four} in 4 bits, beside {table} of token table and"
            f" other weights, {adapter} of adapter with its optimiser and about {activations} of activations"
        )


def _linear_layers(encoder: nn.Module) -> list[nn.Linear]:
    """The layers that updates were put on, in floats or in 4 bits."""
    return [
        layer
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear) and name.rsplit(".", 1)[-1] == "base_layer"
    ]


def _held(layer: nn.Linear) -> int:
    state: Any = getattr(layer.weight, "quant_state", None)
    scales = state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0) if state else 0
    return layer.weight.nbytes + scales
