"""Small edits of an ONNX graph: finding weights, replacing nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
TINY = np.float32(1e-9)
EXTERNAL_ABOVE = 1_900_000_000  # bytes; protobuf itself ends at 2 GiB, graph included


def save_graph(model: ModelProto, path: Path) -> None:
    """Write a graph; tensors beyond protobuf's limit go beside it to `<name>_data`, the name that serving programs look
    for.
    """
    large = sum(tensor_bytes(tensor) for tensor in model.graph.initializer) > EXTERNAL_ABOVE
    data_file(path).unlink(missing_ok=True)  # onnx would write behind what is there
    onnx.save(model, str(path), save_as_external_data=large, location=data_file(path).name)


def data_file(graph: Path) -> Path:
    """Where the tensors of a large graph lie."""
    return graph.with_name(f"{graph.name}_data")


def graph_bytes(path: Path) -> int:
    """Size of a graph on disk, its data file included."""
    data = data_file(path)
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def tensor_bytes(tensor: TensorProto) -> int:
    """Size of a constant's values."""
    return int(np.prod(tensor.dims)) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def clone(model: ModelProto) -> ModelProto:
    """A copy that can be edited."""
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def tensors(graph: GraphProto) -> dict[str, TensorProto]:
    """The graph's constant tensors by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def value(tensor: TensorProto) -> Array:
    """A tensor's values as float32."""
    return np.asarray(numpy_helper.to_array(tensor), np.float32)


def scale_of(array: Array, axis: int, largest: int = 127) -> Array:
    """The step of symmetric integers up to `largest` along `axis`, which is kept."""
    return np.asarray(np.maximum(np.abs(array).max(axis, keepdims=True) / largest, TINY), np.float32)


def add(graph: GraphProto, name: str, array: Array) -> str:
    """Store `array` as a constant, once per name; return the name."""
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name


def replace(graph: GraphProto, replacements: Mapping[str, Sequence[NodeProto]]) -> None:
    """Put nodes in the place of those whose first output is a key, and drop constants no longer read."""
    nodes = [new for old in graph.node for new in replacements.get(old.output[0], [old])]
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def rename(graph: GraphProto, before: str, after: str) -> None:
    """Give a tensor another name wherever it is made, read or returned."""
    for node in graph.node:
        node.output[:] = [after if name == before else name for name in node.output]
        node.input[:] = [after if name == before else name for name in node.input]
    for output in graph.output:
        output.name = after if output.name == before else output.name


def weighted(graph: GraphProto, op: str = "MatMul") -> list[NodeProto]:
    """Nodes of type `op` whose second input is a constant float matrix."""
    constant = tensors(graph)
    return [node for node in graph.node if node.op_type == op and _is_matrix(constant.get(node.input[1]))]


def biases(graph: GraphProto) -> dict[str, tuple[str, str]]:
    """For each matrix product, by its output, that is read by nothing but the sum with a constant row: that sum's
    output, and the row.
    """
    constant, readers = tensors(graph), dict[str, list[NodeProto]]()
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for product in (node.output[0] for node in weighted(graph)):
        for each in readers.get(product, []):
            row = next((name for name in each.input if name in constant and len(constant[name].dims) == 1), None)
            if len(readers[product]) == 1 and each.op_type == "Add" and row:
                found[product] = (each.output[0], row)
    return found


def lookups(graph: GraphProto) -> list[NodeProto]:
    """Gather nodes that read rows of a constant float matrix: token and position tables."""
    constant = tensors(graph)
    return [
        node
        for node in graph.node
        if node.op_type == "Gather" and _is_matrix(constant.get(node.input[0])) and constant[node.input[0]].dims[0] > 2
    ]


def use_contrib_ops(model: ModelProto) -> None:
    """Declare onnxruntime's own operators."""
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _is_matrix(tensor: TensorProto | None) -> bool:
    return (
        tensor is not None
        and len(tensor.dims) == 2
        and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    )
