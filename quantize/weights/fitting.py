"""An 8-bit file made to fit into fewer bytes: the matrices that lose least by it go to 4 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from emb.quantize.weights.activations import observe
from emb.quantize.weights.matrices import BLOCK, levels4
from emb.quantize.weights.surgery import Array, tensors, value, weighted
from emb.tokens import Batch

_SCALE = 4  # bytes


def to_fit(model: ModelProto, batches: Sequence[Batch], over: int) -> set[str]:
    """Matrices of a float `model`, by their outputs, whose 4 bits instead of 8 save `over` bytes: least loss per byte
    first.

    The loss of a matrix is the squared error of its product in 4 bits on `batches`, relative to the product.
    """
    losses, chosen, saved = product_losses(model, batches), set[str](), 0
    savings = {node.output[0]: _saving(*tensors(model.graph)[node.input[1]].dims) for node in weighted(model.graph)}
    for name in sorted(losses, key=lambda name: losses[name] / savings[name]):
        if saved >= over:
            break
        chosen.add(name)
        saved += savings[name]
    return chosen


def product_losses(model: ModelProto, batches: Sequence[Batch]) -> dict[str, float]:
    """For each matrix, by its output: the squared error of its product in 4 bits, relative to the product's square."""
    constant, readers = tensors(model.graph), dict[str, list[tuple[str, Array, Array]]]()
    for node in weighted(model.graph):
        weight = value(constant[node.input[1]])
        readers.setdefault(node.input[0], []).append((node.output[0], weight, _rounded(weight) - weight))
    lost, whole = dict[str, float](), dict[str, float]()
    for source, values in observe(model, batches):
        for name, weight, error in readers[source]:
            lost[name] = lost.get(name, 0.0) + float(np.square(values @ error).sum())
            whole[name] = whole.get(name, 0.0) + float(np.square(values @ weight).sum())
    return {name: lost[name] / max(whole[name], 1e-12) for name in lost}


def _saving(inputs: int, outputs: int) -> int:
    """Bytes between a matrix with a scale per output in 8 bits, and one with a scale per block in 4."""
    blocks = -(-inputs // BLOCK)
    return inputs * outputs + _SCALE * outputs - blocks * outputs * (BLOCK // 2 + _SCALE)


def _rounded(weight: Array) -> Array:
    """`weight` `(inputs, outputs)` as 4 bits hold it."""
    inputs, outputs = weight.shape
    padded = np.pad(weight, ((0, -inputs % BLOCK), (0, 0))).T.reshape(outputs, -1, BLOCK)
    packed, scale = levels4(padded)
    levels = np.stack([packed & 15, packed >> 4], -1).reshape(padded.shape).astype(np.float32) - 8
    return np.asarray((levels * scale).reshape(outputs, -1).T[:inputs])
