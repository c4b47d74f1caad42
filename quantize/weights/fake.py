"""Rounding played in floats, so that training meets the rounding that an exported file will make.

Forward, values are rounded to the steps of the file and come back as floats (Jacob et al. 2018, arXiv 1712.05877,
section 3); backward, gradients pass as if nothing had been rounded, the straight-through estimator (Bengio et al.
2013, arXiv 1308.3432, section 4). Steps follow from the values each time, as the export takes them; they are not
learned, as they are in LSQ (Esser et al. 2020, arXiv 1902.08153): a learned step is one more thing that a file
would have to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from emb.quantize.weights.matrices import BLOCK
from emb.quantize.weights.surgery import TINY


def straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` forward; backward, the gradient of `values`."""
    return values + (rounded - values).detach()


def int8(values: Tensor, block: int | None = None) -> Tensor:
    """`values` `(…, width)` in 255 symmetric steps; one scale per row, or per `block` of it.

    A row is an output channel of a matrix, a token's activations, or a line of a table.
    """
    rows = _blocks(values.float(), block)
    scale = (rows.abs().amax(-1, keepdim=True) / 127).clamp(min=float(TINY))
    return straight_through(values, _joined((rows / scale).round() * scale, values))


def int4(values: Tensor, block: int = BLOCK) -> Tensor:
    """`values` `(…, width)` in 16 steps, one scale per `block`: what `MatMulNBits` reads, see `quantize.weights`."""
    rows = _blocks(values.float(), block)
    scale = rows.gather(-1, rows.abs().argmax(-1, keepdim=True)) / -8
    scale = torch.where(scale.abs() < float(TINY), float(TINY), scale)
    return straight_through(values, _joined((rows / scale).round().clamp(-8, 7) * scale, values))


def signs(vectors: Tensor) -> Tensor:
    """The ±1 vectors `(batch, dim)` of a file with binary outputs, for training.

    The gradient passes through a vector of the same length, √dim, so that what it moves does not depend on how long
    the vectors were.
    """
    level = nn.functional.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5
    return straight_through(level, torch.where(vectors > 0, 1.0, -1.0))


@dataclass(frozen=True)
class Precision:
    """How a file of one weight type rounds matrices `(out, in)` and the activations `(…, in)` that meet them."""

    name: str
    weight: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]


PRECISIONS = {
    # The coarsest of the 8-bit schemes but for smoothing: a scale per output channel, another per token.
    "int8": Precision("int8", int8, int8),
    "int4": Precision("int4", int4, partial(int8, block=BLOCK)),
}


@dataclass
class Dial:
    """Which precision a model under `fake_quantised` computes in; None leaves it in floats."""

    precision: Precision | None = None


@contextmanager
def fake_quantised(model: nn.Module) -> Iterator[Dial]:
    """Round `model`'s matrices, what they multiply, and its tables as the dial says, until the end of the block.

    What an export stores in fewer bits is rounded here: every `Linear`, and every table of more than two rows. The
    parameters stay the floats they are, and optimisers see those.
    """
    dial = Dial()
    with ExitStack() as undo:
        for module in list(model.modules()):
            if isinstance(module, nn.Linear):
                parametrize.register_parametrization(module, "weight", _Rounded(dial))
                undo.callback(parametrize.remove_parametrizations, module, "weight", leave_parametrized=False)
                undo.callback(module.register_forward_pre_hook(partial(_round_inputs, dial)).remove)
            elif isinstance(module, nn.Embedding) and module.num_embeddings > 2:
                # Rows are rounded one by one, so only those that were read need it.
                undo.callback(module.register_forward_hook(partial(_round_rows, dial)).remove)
        yield dial


class _Rounded(nn.Module):
    def __init__(self, dial: Dial) -> None:
        super().__init__()
        self.dial = dial

    def forward(self, weight: Tensor) -> Tensor:
        return self.dial.precision.weight(weight) if self.dial.precision else weight


def _round_inputs(dial: Dial, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (dial.precision.activation(inputs[0]), *inputs[1:]) if dial.precision else inputs


def _round_rows(dial: Dial, module: nn.Module, inputs: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    return int8(rows) if dial.precision else rows


def _blocks(values: Tensor, block: int | None) -> Tensor:
    """`(…, width)` as `(…, blocks, block)`, filled up with zeros; without a block a row is one."""
    if block is None:
        return values
    padded = nn.functional.pad(values, (0, -values.shape[-1] % block))
    return padded.reshape(*values.shape[:-1], -1, block)


def _joined(rounded: Tensor, like: Tensor) -> Tensor:
    flat = rounded if rounded.ndim == like.ndim else rounded.flatten(-2)
    return flat[..., : like.shape[-1]].to(like.dtype)
