"""8-bit weights: the ways to make them, each an edit of the float graph.

Three things differ between recipes: how activations meet 8-bit weights (quantised on the fly, or
weights alone stored in 8 bits), which matrices stay out, and whether outlier channels are moved
from activations into weights first. Embedding tables are int8 with one scale per row in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from emb.quantize.surgery import Array, add, clone, graph_bytes, lookups, replace, tensors, use_contrib_ops, value, weighted
from emb.tokens import Batch

SMOOTH_BELOW = 1_500_000_000  # bytes
_TINY = np.float32(1e-9)


@dataclass(frozen=True)
class QuantizeRecipe:
    """One way to 8 bits.

    Attributes:
        name: as it appears in reports.
        what: one sentence about it.
        build: edits the float graph in place, with padded batches to calibrate on.
    """

    name: str
    what: str
    build: Callable[[ModelProto, Sequence[Batch]], None]


def recipes(graph: Path) -> list[QuantizeRecipe]:
    """The recipes to try on a graph of this size; calibration runs in memory, so large graphs go without."""
    found = [
        QuantizeRecipe("dynamic", "int8 matrices, activations quantised per batch", _dynamic),
        QuantizeRecipe("weight-only-128", "8-bit matrices, a scale per 128 inputs", partial(_weight_only, block=128)),
        QuantizeRecipe("weight-only-32", "8-bit matrices, a scale per 32 inputs", partial(_weight_only, block=32)),
        QuantizeRecipe("dynamic-mixed", "dynamic, narrowing matrices weight-only", _mixed),
    ]
    smoothed = [
        QuantizeRecipe("per-token-smooth", "int8 matrices, activations smoothed and quantised per token", _smooth_token),
        QuantizeRecipe("per-token-smooth-mixed", "the same, narrowing matrices weight-only", _smooth_token_mixed),
    ]
    return found + (smoothed if graph_bytes(graph) < SMOOTH_BELOW else [])


def _dynamic(model: ModelProto, batches: Sequence[Batch]) -> None:
    quantize_tables(model)
    dynamic(model, per_token=False)


def _mixed(model: ModelProto, batches: Sequence[Batch]) -> None:
    quantize_tables(model)
    weight_only(model, 128, narrows)
    dynamic(model, per_token=False)


def _weight_only(model: ModelProto, batches: Sequence[Batch], block: int) -> None:
    quantize_tables(model)
    weight_only(model, block)


def _smooth_token(model: ModelProto, batches: Sequence[Batch]) -> None:
    smooth(model, batches)
    quantize_tables(model)
    dynamic(model, per_token=True)


def _smooth_token_mixed(model: ModelProto, batches: Sequence[Batch]) -> None:
    smooth(model, batches)
    quantize_tables(model)
    weight_only(model, 128, narrows)
    dynamic(model, per_token=True)


def quantize_tables(model: ModelProto) -> None:
    """Store lookup tables as int8 with a scale per row: rows differ widely in size, and only a few are read."""
    constant, edits = tensors(model.graph), {}
    for node in lookups(model.graph):
        table, index, out = value(constant[node.input[0]]), node.input[1], node.output[0]
        scale = _scale(table, 1)
        rows = add(model.graph, f"{node.input[0]}_int8", np.round(table / scale).astype(np.int8))
        scales = add(model.graph, f"{node.input[0]}_scale", scale)
        edits[out] = [
            helper.make_node("Gather", [rows, index], [f"{out}_int8"], axis=0),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [scales, index], [f"{out}_scale"], axis=0),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
    replace(model.graph, edits)


def weight_only(model: ModelProto, block: int, chosen: Callable[[ModelProto, NodeProto], bool] | None = None) -> None:
    """Store matrices in 8 bits with a scale per `block` inputs; onnxruntime's MatMulNBits multiplies.

    `accuracy_level=4` lets it quantise activations too, block by block within a token, so a
    text's vector does not depend on its batch.
    """
    constant, edits = tensors(model.graph), {}
    for node in weighted(model.graph):
        if chosen is None or chosen(model, node):
            edits[node.output[0]] = [_nbits(model, node, value(constant[node.input[1]]), block)]
    replace(model.graph, edits)
    use_contrib_ops(model)


def dynamic(model: ModelProto, *, per_token: bool) -> None:
    """Store matrices as int8 with a scale per output channel; quantise activations when they come.

    Activations get one scale per batch, or one per token: a token with large values then costs no
    other its precision, and a text's vector does not depend on its batch (Yao et al. 2022, ZeroQuant, section 3.1).
    """
    constant, edits, seen = tensors(model.graph), {}, set[str]()
    for node in weighted(model.graph):
        shared = f"{node.input[0]}_quantized"
        prepare = [] if shared in seen else (_quantize_tokens if per_token else _quantize_batch)(model, node.input[0], shared)
        seen.add(shared)
        edits[node.output[0]] = [*prepare, *_integer_matmul(model, node, value(constant[node.input[1]]), shared, per_token)]
    replace(model.graph, edits)
    use_contrib_ops(model)


def smooth(model: ModelProto, batches: Sequence[Batch], alpha: float = 0.7) -> None:
    """Divide outlier channels of activations by what the weights behind them are multiplied by.

    The product stays the same and both sides quantise better (Xiao et al. 2023, SmoothQuant, eq. 4).
    """
    largest = _largest(model, batches)
    constant, edits, done = tensors(model.graph), {}, set[str]()
    readers: dict[str, list[NodeProto]] = {}
    for node in weighted(model.graph):
        readers.setdefault(node.input[0], []).append(node)
    for source, nodes in readers.items():
        factor = _smoothing(largest[source], [value(constant[node.input[1]]) for node in nodes], alpha)
        out = f"{source}_smooth"
        inverse = add(model.graph, f"{out}_factor", 1 / factor)
        for node in nodes:
            weight = add(model.graph, f"{node.input[1]}_smooth", value(constant[node.input[1]]) * factor[:, None])
            before = [] if source in done else [helper.make_node("Mul", [source, inverse], [out])]
            done.add(source)
            edits[node.output[0]] = [*before, helper.make_node("MatMul", [out, weight], list(node.output))]
    replace(model.graph, edits)


def narrows(model: ModelProto, node: NodeProto) -> bool:
    """Whether a matrix has more inputs than outputs: the second of a feed-forward block, whose inputs have the outliers."""
    rows, columns = tensors(model.graph)[node.input[1]].dims
    return bool(rows > columns)


def _nbits(model: ModelProto, node: NodeProto, weight: Array, block: int) -> NodeProto:
    inputs, outputs = weight.shape
    blocks = -(-inputs // block)
    padded = np.zeros((outputs, blocks * block), np.float32)
    padded[:, :inputs] = weight.T
    grouped = padded.reshape(outputs, blocks, block)
    scale = _scale(grouped, 2)
    stored = add(model.graph, f"{node.input[1]}_block{block}", (np.round(grouped / scale) + 128).astype(np.uint8))
    scales = add(model.graph, f"{node.input[1]}_block{block}_scale", scale.reshape(-1))
    return helper.make_node(
        "MatMulNBits", [node.input[0], stored, scales], list(node.output), domain="com.microsoft",
        K=inputs, N=outputs, bits=8, block_size=block, accuracy_level=4,
    )


def _quantize_batch(model: ModelProto, source: str, name: str) -> list[NodeProto]:
    return [helper.make_node("DynamicQuantizeLinear", [source], [f"{name}_q", f"{name}_scale", f"{name}_zero"])]


def _quantize_tokens(model: ModelProto, source: str, name: str) -> list[NodeProto]:
    # Each token is brought to -1…1, quantised by a constant, and brought back after the product.
    floor = add(model.graph, "token_floor", np.asarray(_TINY))
    add(model.graph, "token_scale", np.asarray(1 / 127, np.float32))
    add(model.graph, "token_zero", np.asarray(128, np.uint8))
    return [
        helper.make_node("Abs", [source], [f"{name}_abs"]),
        helper.make_node("ReduceMax", [f"{name}_abs"], [f"{name}_max"], axes=[-1], keepdims=1),
        helper.make_node("Max", [f"{name}_max", floor], [f"{name}_size"]),
        helper.make_node("Div", [source, f"{name}_size"], [f"{name}_unit"]),
        helper.make_node("QuantizeLinear", [f"{name}_unit", "token_scale", "token_zero"], [f"{name}_q"]),
    ]


def _integer_matmul(model: ModelProto, node: NodeProto, weight: Array, source: str, per_token: bool) -> list[NodeProto]:
    scale = _scale(weight, 0)
    stored = add(model.graph, f"{node.input[1]}_int8", np.round(weight / scale).astype(np.int8))
    scales = add(model.graph, f"{node.input[1]}_scale", scale.reshape(-1))
    zeros = add(model.graph, f"zeros_{weight.shape[1]}", np.zeros(weight.shape[1], np.int8))
    out = node.output[0]
    activation = ("token_scale", "token_zero") if per_token else (f"{source}_scale", f"{source}_zero")
    product = f"{out}_unit" if per_token else out
    inputs = [f"{source}_q", stored, activation[0], scales, activation[1], zeros]
    multiply = helper.make_node("MatMulIntegerToFloat", inputs, [product], domain="com.microsoft")
    return [multiply, helper.make_node("Mul", [product, f"{source}_size"], [out])] if per_token else [multiply]


def _smoothing(largest: Array, weights: Sequence[Array], alpha: float) -> Array:
    of_weights = np.maximum.reduce([np.abs(weight).max(1) for weight in weights])
    factor = np.maximum(largest, 1e-5) ** alpha / np.maximum(of_weights, 1e-5) ** (1 - alpha)
    return np.asarray(factor / np.exp(np.log(factor).mean()), np.float32)


def _largest(model: ModelProto, batches: Sequence[Batch]) -> dict[str, Array]:
    """Largest absolute value of each channel of every matrix's input, over the calibration batches."""
    from emb.encoder import open_session

    names = list(dict.fromkeys(node.input[0] for node in weighted(model.graph)))
    probed = clone(model)
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session, largest = open_session(probed.SerializeToString()), dict[str, Array]()
    for ids, mask in batches:
        for name, found in zip(names, session.run(names, {"input_ids": ids, "attention_mask": mask}), strict=True):
            peak = np.abs(found).reshape(-1, found.shape[-1]).max(0)
            largest[name] = np.maximum(largest.get(name, 0), peak)
    return largest


def _scale(array: Array, axis: int) -> Array:
    return np.asarray(np.maximum(np.abs(array).max(axis, keepdims=True) / 127, _TINY), np.float32)
