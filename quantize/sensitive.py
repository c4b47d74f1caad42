"""Which matrices lose most by 8 bits: found by measuring each on real inputs, not by its name or shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto

from emb.quantize.activations import observe
from emb.quantize.surgery import TINY, Array, scale_of, tensors, value, weighted
from emb.tokens import Batch

_TEXTS = 24  # of those to calibrate on
Rounding = Callable[[Array], Array]


def sensitive(model: ModelProto, batches: Sequence[Batch], share: float, rounding: Rounding) -> set[str]:
    """The outputs of the `share` of matrices whose products err most in 8 bits, rounded up."""
    if not share:
        return set()
    errors = product_errors(model, batches[:: max(1, len(batches) // _TEXTS)], rounding)
    worst = sorted(errors, key=lambda name: -errors[name])
    return set(worst[: math.ceil(share * len(worst))])


def product_errors(model: ModelProto, batches: Sequence[Batch], rounding: Rounding) -> dict[str, float]:
    """For each matrix, by its output: the error of its product in 8 bits, relative to the product, as the root mean square over tokens.

    Every token counts alike. A few have activations a thousand times larger than the rest
    (Sun et al. 2024, Massive Activations in Large Language Models, arXiv 2402.17762): their products
    outweigh all others, whose steps they spoil.
    """
    constant, readers = tensors(model.graph), dict[str, list[tuple[str, Array, Array]]]()
    for node in weighted(model.graph):
        weight = value(constant[node.input[1]])
        scale = scale_of(weight, 0)
        readers.setdefault(node.input[0], []).append((node.output[0], weight, np.round(weight / scale) * scale))
    squares: dict[str, list[Array]] = {}
    for source, values in observe(model, batches):
        rough = rounding(values)
        for name, weight, stored in readers[source]:
            product = values @ weight
            lost, whole = (np.square(each).sum(1) for each in (rough @ stored - product, product))
            squares.setdefault(name, []).append(lost / np.maximum(whole, TINY))
    return {name: float(np.sqrt(np.concatenate(found).mean())) for name, found in squares.items()}


def by_range(values: Array) -> Array:
    """`values` `(tokens, channels)` in 256 steps between the least and the greatest of them all."""
    low, high = min(values.min(), 0), max(values.max(), 0)
    step = max((high - low) / 255, TINY)
    return np.asarray(np.round(values / step) * step, np.float32)


def by_token(values: Array) -> Array:
    """`values` `(tokens, channels)` in 255 symmetric steps, a step for each token."""
    step = scale_of(values, 1)
    return np.asarray(np.round(values / step) * step, np.float32)
