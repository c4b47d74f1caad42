"""Outlier channels of activations moved into weights, where they quantise better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper

from emb.quantize.weights.activations import observe
from emb.quantize.weights.surgery import Array, add, biases, replace, tensors, value, weighted
from emb.tokens import Batch


def smooth(model: ModelProto, batches: Sequence[Batch], alpha: float = 0.7) -> None:
    """Divide outlier channels of activations by what the weights behind them are multiplied by.

    The product stays the same and both sides quantise better (Xiao et al. 2023, SmoothQuant, eq. 4). What attention
    returns is a mean of its values, so there the division is folded into the matrix that makes the values;
    elsewhere it is a product of its own.
    """
    factors, behind = _factors(model, batches, alpha), _values(model.graph)
    constant, rows = tensors(model.graph), biases(model.graph)
    shrunk = {behind[source]: 1 / factor for source, factor in factors.items() if source in behind}
    edits, done = dict[str, list[NodeProto]](), set(behind)
    for node in weighted(model.graph):
        source, out = node.input[0], node.output[0]
        factor = factors[source]
        weight = add(
            model.graph,
            f"{out}_smooth",
            value(constant[node.input[1]]) * factor[:, None] * shrunk.get(out, np.float32(1)),
        )
        smoothed = source if source in behind else f"{source}_smooth"
        before = (
            []
            if source in done
            else [helper.make_node("Mul", [source, add(model.graph, f"{source}_factor", 1 / factor)], [smoothed])]
        )
        done.add(source)
        edits[out] = [*before, helper.make_node("MatMul", [smoothed, weight], [out])]
        if out in shrunk:
            total, bias = rows[out]
            row = add(model.graph, f"{total}_row", value(constant[bias]) * shrunk[out])
            edits[total] = [helper.make_node("Add", [out, row], [total])]
    replace(model.graph, edits)


def _factors(model: ModelProto, batches: Sequence[Batch], alpha: float) -> dict[str, Array]:
    """For each matrix input, by name: what its channels `(channels,)` are divided by."""
    largest, constant = dict[str, Array](), tensors(model.graph)
    for name, values in observe(model, batches):
        peaks = np.abs(values).max(0)
        largest[name] = np.maximum(largest.get(name, peaks), peaks)
    readers: dict[str, list[Array]] = {}
    for node in weighted(model.graph):
        readers.setdefault(node.input[0], []).append(value(constant[node.input[1]]))
    return {source: _factor(largest[source], weights, alpha) for source, weights in readers.items()}


def _factor(largest: Array, weights: Sequence[Array], alpha: float) -> Array:
    of_weights = np.maximum.reduce([np.abs(weight).max(1) for weight in weights])
    factor = np.maximum(largest, 1e-5) ** alpha / np.maximum(of_weights, 1e-5) ** (1 - alpha)
    return np.asarray(factor / np.exp(np.log(factor).mean()), np.float32)


def _values(graph: GraphProto) -> dict[str, str]:
    """For outputs of fused attention whose values are a matrix's product and its bias: the output of that product."""
    products = {node.output[0] for node in weighted(graph)}
    totals = {total: product for product, (total, _) in biases(graph).items() if product in products}
    attention = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    return {node.output[0]: totals[node.input[2]] for node in attention if node.input[2] in totals}
