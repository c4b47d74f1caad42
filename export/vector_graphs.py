"""Other number types at a graph's edge: int8 or binary vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from emb.progress import warn
from emb.quantize.vectors.ranges import steps
from emb.quantize.weights.surgery import add, rename, save_graph
from emb.similarity import Vectors, share_of_first

_UNEVEN = 0.5  # of the squared length in a quarter of the dims; a quarter where all are alike (docs/rotate.md)
VECTOR_DTYPES = {"int8": "int8", "binary": "ubinary"}


def write_vectors(graph: Path, out: Path, kind: str, ranges: Any) -> None:
    """Write `graph` so that it returns int8 `(batch, dim)` by `ranges` `(2, dim)`, or bits `(batch, dim / 8)` uint8.

    The figures are those of `quantize_int8` and `binarize`.
    """
    model = onnx.load(str(graph))
    dim = len(ranges[0])
    if kind == "int8":
        _finish(model, _int8(model.graph, ranges), TensorProto.INT8, dim)
    else:
        _finish(model, _bits(model.graph, dim), TensorProto.UINT8, dim // 8)
    save_graph(model, out)


def warn_of_uneven(vectors: Vectors) -> None:
    """Say where plain sign bits will lose much: they count all dims alike, and of `vectors` `(texts, dim)` the first
    say most, as those of a rotated teacher do.
    """
    share = share_of_first(vectors, max(1, vectors.shape[1] // 4))
    if share > _UNEVEN:
        warn(
            f"a quarter of the dims holds {share:.0%} of the vectors: plain sign bits count all dims alike and will"
            " lose much; store floats by `emb codec --kind binary --rotation itq` instead"
        )


def _finish(model: ModelProto, nodes: list[NodeProto], dtype: int, width: int) -> None:
    """Rename the float output to `vector`, which `nodes` read, and let them produce it."""
    graph = model.graph
    name = graph.output[0].name
    rename(graph, name, "vector")
    nodes[-1].output[:] = [name]
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, dtype, ["batch", width]))


def _int8(graph: GraphProto, ranges: Any) -> list[NodeProto]:
    low, step = steps(ranges)
    bounds = {"low": low, "step": step, "half": np.float32(128), "least": np.float32(-128), "most": np.float32(127)}
    names = {key: add(graph, f"vector_{key}", np.asarray(each, np.float32)) for key, each in bounds.items()}
    return [
        helper.make_node("Sub", ["vector", names["low"]], ["vector_above"]),
        helper.make_node("Div", ["vector_above", names["step"]], ["vector_steps"]),
        helper.make_node("Round", ["vector_steps"], ["vector_round"]),
        helper.make_node("Sub", ["vector_round", names["half"]], ["vector_signed"]),
        helper.make_node("Clip", ["vector_signed", names["least"], names["most"]], ["vector_clipped"]),
        helper.make_node("Cast", ["vector_clipped"], ["vector_int8"], to=TensorProto.INT8),
    ]


def _bits(graph: GraphProto, dim: int) -> list[NodeProto]:
    zero = add(graph, "vector_zero", np.asarray(0, np.float32))
    shape = add(graph, "vector_bytes", np.asarray([-1, dim // 8, 8], np.int64))
    places = add(graph, "vector_places", np.asarray([[128], [64], [32], [16], [8], [4], [2], [1]], np.float32))
    last = add(graph, "vector_last", np.asarray([2], np.int64))
    return [
        helper.make_node("Greater", ["vector", zero], ["vector_positive"]),
        helper.make_node("Cast", ["vector_positive"], ["vector_bits"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["vector_bits", shape], ["vector_grouped"]),
        helper.make_node("MatMul", ["vector_grouped", places], ["vector_summed"]),
        helper.make_node("Squeeze", ["vector_summed", last], ["vector_packed"]),
        helper.make_node("Cast", ["vector_packed"], ["vector_ubinary"], to=TensorProto.UINT8),
    ]
