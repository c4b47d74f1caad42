"""Matrices in 8 or 4 bits: weights alone, or weights and what they are multiplied with; and lookup tables."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from emb.quantize.weights.activations import Activation, Quantized
from emb.quantize.weights.saturation import EIGHT_BITS
from emb.quantize.weights.surgery import (
    TINY,
    Array,
    add,
    biases,
    lookups,
    replace,
    scale_of,
    tensors,
    use_contrib_ops,
    value,
    weighted,
)

BLOCK = 32  # inputs that share a scale in 4-bit weights


def quantize_tables(model: ModelProto) -> None:
    """Store lookup tables as int8 with a scale per row: rows differ widely in size, and only a few are read."""
    constant, edits = tensors(model.graph), {}
    for node in lookups(model.graph):
        table, index, out = value(constant[node.input[0]]), node.input[1], node.output[0]
        scale = scale_of(table, 1)
        rows = add(model.graph, f"{node.input[0]}_int8", np.round(table / scale).astype(np.int8))
        scales = add(model.graph, f"{node.input[0]}_scale", scale)
        edits[out] = [
            helper.make_node("Gather", [rows, index], [f"{out}_int8"], axis=0),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [scales, index], [f"{out}_scale"], axis=0),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
    replace(model.graph, edits)


def weight_only(model: ModelProto, block: int, chosen: set[str] | None = None, bits: int = 8) -> None:
    """Store matrices (all, or those with the outputs `chosen`) in 8 or 4 `bits` with a scale per `block` inputs;
    onnxruntime's MatMulNBits multiplies.

    It quantises activations too, block by block within a token, so a text's vector does not depend on its batch.
    """
    constant, edits = tensors(model.graph), {}
    for node in weighted(model.graph):
        if chosen is None or node.output[0] in chosen:
            edits[node.output[0]] = [_nbits(model, node, value(constant[node.input[1]]), block, bits)]
    replace(model.graph, edits)
    use_contrib_ops(model)


def stored(model: ModelProto, block: int, chosen: set[str] | None = None) -> None:
    """Store matrices (all, or those with the outputs `chosen`) in 8 bits with a scale per `block` inputs, and compute
    with them in floats.

    onnxruntime folds what depends on constants alone when it opens a file: a quarter to send, as large in memory and as
    fast as floats.
    """
    constant, edits = tensors(model.graph), {}
    for node in weighted(model.graph):
        if chosen is None or node.output[0] in chosen:
            edits[node.output[0]] = _unfolded(model, node, value(constant[node.input[1]]), block)
    replace(model.graph, edits)


def integer(model: ModelProto, activation: Activation, largest: int = EIGHT_BITS) -> None:
    """Store matrices as int8 up to `largest` with a scale per output channel; `activation` says how what they multiply
    becomes 8 bits.

    A bias is added by the product itself, which costs nothing; a pass of its own takes as long as a normalisation.
    """
    constant, rows = tensors(model.graph), biases(model.graph)
    edits, done = dict[str, list[NodeProto]](), dict[str, Quantized]()
    for node in weighted(model.graph):
        source, before = node.input[0], list[NodeProto]()
        if source not in done:  # queries, keys and values read one source
            done[source] = activation(model, source)
            before = done[source].nodes
        product = _integer_matmul(model, node, value(constant[node.input[1]]), done[source], largest)
        if node.output[0] in rows and not done[source].size:
            total, bias = rows[node.output[0]]
            product[0].input.append(bias)
            product[0].output[0] = total
            edits[total] = []
        edits[node.output[0]] = [*before, *product]
    replace(model.graph, edits)
    use_contrib_ops(model)


def _nbits(model: ModelProto, node: NodeProto, weight: Array, block: int, bits: int) -> NodeProto:
    inputs, outputs = weight.shape
    blocks = -(-inputs // block)
    padded = np.zeros((outputs, blocks * block), np.float32)
    padded[:, :inputs] = weight.T
    grouped = padded.reshape(outputs, blocks, block)
    levels, scale = levels4(grouped) if bits == 4 else _levels8(grouped)
    name = f"{node.input[1]}_block{block}" if bits == 8 else f"{node.input[1]}_{bits}bit_block{block}"
    stored, scales = add(model.graph, name, levels), add(model.graph, f"{name}_scale", scale.reshape(-1))
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], stored, scales],
        list(node.output),
        domain="com.microsoft",
        K=inputs,
        N=outputs,
        bits=bits,
        block_size=block,
        accuracy_level=4,
    )


def _unfolded(model: ModelProto, node: NodeProto, weight: Array, block: int) -> list[NodeProto]:
    inputs, outputs = weight.shape
    grouped = weight.reshape(-1, inputs if inputs % block else block, outputs)
    scale, out = scale_of(grouped, 1), node.output[0]
    levels = add(model.graph, f"{node.input[1]}_stored", np.round(grouped / scale).astype(np.int8))
    scales = add(model.graph, f"{node.input[1]}_stored_scale", scale)
    shape = add(model.graph, f"shape_{inputs}_{outputs}", np.asarray(weight.shape))
    return [
        helper.make_node("Cast", [levels], [f"{out}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_cast", scales], [f"{out}_scaled"]),
        helper.make_node("Reshape", [f"{out}_scaled", shape], [f"{out}_matrix"]),
        helper.make_node("MatMul", [node.input[0], f"{out}_matrix"], [out]),
    ]


def _levels8(grouped: Array) -> tuple[Array, Array]:
    """Bytes around 128 of blocks `(outputs, blocks, block)`, and the step of each."""
    scale = scale_of(grouped, 2)
    return (np.round(grouped / scale) + 128).astype(np.uint8), scale


def levels4(grouped: Array) -> tuple[Array, Array]:
    """Half bytes around 8, two to a byte and the first one low, of blocks `(outputs, blocks, block)`, and the step of
    each.

    There are eight steps below zero and seven above, so the value that lies farthest out is given the eighth, and
    the step its sign: what onnxruntime's own quantiser does. On a MiniLM's weights the squared error is 22 %
    smaller than with seven steps either way (docs/log.md).
    """
    farthest = np.take_along_axis(grouped, np.abs(grouped).argmax(2, keepdims=True), 2)
    scale = (farthest / -8).astype(np.float32)
    scale[np.abs(scale) < TINY] = TINY
    levels = (np.clip(np.round(grouped / scale), -8, 7) + 8).astype(np.uint8)
    return levels[..., 0::2] | levels[..., 1::2] << 4, scale


def _integer_matmul(
    model: ModelProto, node: NodeProto, weight: Array, source: Quantized, largest: int
) -> list[NodeProto]:
    scale = scale_of(weight, 0, largest)
    stored = add(model.graph, f"{node.input[1]}_int8", np.round(weight / scale).astype(np.int8))
    scales = add(model.graph, f"{node.input[1]}_scale", scale.reshape(-1))
    out = node.output[0]
    product = f"{out}_unit" if source.size else out
    multiply = helper.make_node(
        "MatMulIntegerToFloat",
        [source.values, stored, source.scale, scales, source.zero, ""],
        [product],
        domain="com.microsoft",
    )
    return [multiply, helper.make_node("Mul", [product, source.size], [out])] if source.size else [multiply]
