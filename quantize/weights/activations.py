"""How activations become 8 bits: one scale per batch, one per token, or one fixed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto, helper

from emb.quantize.weights.surgery import TINY, Array, add, clone, weighted
from emb.tokens import Batch


@dataclass(frozen=True)
class Quantized:
    """An activation in 8 bits, by the names of its values, scale and zero point, and the `nodes` that make it.

    `size`, where there is one, multiplies the products afterwards, token by token.
    """

    nodes: list[NodeProto]
    values: str
    scale: str
    zero: str
    size: str | None = None


Activation: TypeAlias = Callable[[ModelProto, str], Quantized]


def per_batch(model: ModelProto, source: str) -> Quantized:
    """One scale for all that is in the batch, found when it comes."""
    names = [f"{source}_q", f"{source}_q_scale", f"{source}_q_zero"]
    return Quantized([helper.make_node("DynamicQuantizeLinear", [source], names)], *names)


def per_token(model: ModelProto, source: str) -> Quantized:
    """One scale for each token: one with large values costs no other its precision, and a text's
    vector does not depend on its batch (Yao et al. 2022, ZeroQuant, section 3.1)."""
    # Each token is brought to -1…1, quantised by a constant, and brought back after the product.
    floor = add(model.graph, "token_floor", np.asarray(TINY))
    scale = add(model.graph, "token_scale", np.asarray(1 / 127, np.float32))
    zero = add(model.graph, "token_zero", np.asarray(128, np.uint8))
    nodes = [
        helper.make_node("Abs", [source], [f"{source}_abs"]),
        helper.make_node("ReduceMax", [f"{source}_abs"], [f"{source}_max"], axes=[-1], keepdims=1),
        helper.make_node("Max", [f"{source}_max", floor], [f"{source}_size"]),
        helper.make_node("Div", [source, f"{source}_size"], [f"{source}_unit"]),
        helper.make_node("QuantizeLinear", [f"{source}_unit", scale, zero], [f"{source}_q"]),
    ]
    return Quantized(nodes, f"{source}_q", scale, zero, f"{source}_size")


def fixed(model: ModelProto, batches: Sequence[Batch], clipped: float = 0.0) -> Activation:
    """One scale for good, from the ranges seen on `batches`: nothing is computed when texts come.

    The range is the widest seen in any of them, leaving out the share `clipped` of a batch's values at either end.
    """
    low, high = dict[str, float](), dict[str, float]()
    for name, values in observe(model, batches):
        ends = np.quantile(values, [clipped, 1 - clipped]) if clipped else (values.min(), values.max())
        low[name], high[name] = min(low.get(name, 0.0), float(ends[0])), max(high.get(name, 0.0), float(ends[1]))

    def quantize(model: ModelProto, source: str) -> Quantized:
        step = max((high[source] - low[source]) / 255, float(TINY))
        scale = add(model.graph, f"{source}_range", np.asarray(step, np.float32))
        zero = add(model.graph, f"{source}_zero", np.asarray(round(-low[source] / step), np.uint8))
        return Quantized(
            [helper.make_node("QuantizeLinear", [source, scale, zero], [f"{source}_q"])], f"{source}_q", scale, zero
        )

    return quantize


def observe(model: ModelProto, batches: Sequence[Batch]) -> Iterator[tuple[str, Array]]:
    """Every matrix's input `(tokens, channels)` with its name, one after another for each of `batches`."""
    from emb.runtime.sessions import open_session

    names = list(dict.fromkeys(node.input[0] for node in weighted(model.graph)))
    if not names:  # asked for nothing, onnxruntime returns everything
        return
    probed = clone(model)
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(probed.SerializeToString())
    for ids, mask in batches:
        for name, found in zip(names, session.run(names, {"input_ids": ids, "attention_mask": mask}), strict=True):
            yield name, found.reshape(-1, found.shape[-1])
