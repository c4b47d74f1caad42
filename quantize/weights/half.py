"""16-bit weights: computed with in 16 bits where that is exact enough, otherwise stored in 16 and computed with in 32.

Sixteen bits end at 65,504. Decoders have a few activations of many thousands, whose squares in a normalisation lie
beyond: such a model gives nonsense in 16 bits, and its vectors in 32. onnxruntime on a CPU would not show it, since
it makes such steps 32 bits wide again; so values are looked at.

There is no bfloat16 here: onnxruntime's CPU kernels know it in Cast alone, no product and no sum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from emb.errors import ArtifactError
from emb.progress import warn
from emb.quantize.weights.judge import Trial, smallest_cosine
from emb.quantize.weights.surgery import Array, add, data_file, lookups, replace, save_graph, tensors, value, weighted
from emb.runtime.sessions import open_session
from emb.tokens import Rows, TextTokenizer

MIN_COSINE = 0.9999
STORED = "stored"  # the second way, by its name in manifests
_LARGEST = float(np.finfo(np.float16).max)
_ROOM = _LARGEST / 2  # other texts go further than those tried
_MASK = 1e30  # what is added to the scores of padding is meant to be beyond all values
_GROWING = {"Add", "Div", "Gemm", "MatMul", "Mul", "Pow", "ReduceMean", "ReduceSum"}


def select_fp16(graph: Path, out: Path, trial: Trial) -> tuple[str | None, float]:
    """Write `graph` in 16 bits to `out`; return the way, None or "stored", and its smallest cosine to `graph` on the
    trial's texts.

    Stored is what is written where computing in 16 bits does not reach `MIN_COSINE`, alone or in mixed batches.
    """
    peak, found = largest_value(graph, out.with_name(".probed.onnx"), trial.some(), trial.tokenizer), -1.0
    if peak < _ROOM:
        write_fp16(graph, out)
        found = _cosine(graph, out, trial)
    if found >= MIN_COSINE:
        return None, found
    reason = (
        f"values reach {peak:,.0f}, and 16 bits end at {_LARGEST:,.0f}"
        if peak >= _ROOM
        else f"computed with in 16 bits, the smallest cosine is {found:.4f}"
    )
    store_fp16(graph, out)
    warn(f"fp16: {reason}; weights are stored in 16 bits and computed with in 32")
    return STORED, _cosine(graph, out, trial)


def largest_value(graph: Path, probed: Path, rows: Rows, tokenizer: TextTokenizer) -> float:
    """The largest magnitude that a sum or product inside `graph` has on the texts `rows`; `probed` is a file to work
    in.
    """
    model = onnx.load(str(graph))
    ends = []
    for output in [name for node in model.graph.node if node.op_type in _GROWING for name in node.output]:
        for op in ("ReduceMax", "ReduceMin"):
            ends.append(f"{output}_{op}")
            model.graph.node.append(helper.make_node(op, [output], [ends[-1]], keepdims=0))
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in ends)
    save_graph(model, probed)
    session = open_session(probed)
    batches = [tokenizer.pad([row]) for row in rows]
    seen = [value for ids, mask in batches for value in session.run(ends, {"input_ids": ids, "attention_mask": mask})]
    for left in (probed, data_file(probed)):
        left.unlink(missing_ok=True)
    # Whole numbers stay what they are: MPNet's distances go through the end of their range.
    return max(abs(float(value)) for value in seen if value.dtype.kind == "f" and abs(value) < _MASK)


def write_fp16(graph: Path, out: Path) -> None:
    """Write `graph` with 16-bit weights and activations; inputs and outputs stay as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # By its path: shapes of a graph beyond 2 GB cannot be found in memory.
    save_graph(convert_float_to_float16(str(graph), keep_io_types=True), out)


def store_fp16(graph: Path, out: Path) -> None:
    """Write `graph` with its matrices and tables in 16 bits, each made 32 again where it is read; one with values
    beyond 16 bits stays as it is.
    """
    model = onnx.load(str(graph))
    _shrink_tables(model)
    _shrink_matrices(model)
    save_graph(model, out)


def _shrink_tables(model: ModelProto) -> None:
    constant, edits = tensors(model.graph), {}
    for node in lookups(model.graph):
        if not _fits(value(constant[node.input[0]])):
            continue
        rows = add(model.graph, f"{node.input[0]}_half", _halved(value(constant[node.input[0]])))
        out = node.output[0]
        read = helper.make_node("Gather", [rows, node.input[1]], [f"{out}_half"], axis=0)
        edits[out] = [read, helper.make_node("Cast", [f"{out}_half"], [out], to=TensorProto.FLOAT)]
    replace(model.graph, edits)


def _shrink_matrices(model: ModelProto) -> None:
    constant, edits, done = tensors(model.graph), {}, set[str]()
    for node in weighted(model.graph):
        name = node.input[1]
        if not _fits(value(constant[name])):
            continue
        half = add(model.graph, f"{name}_half", _halved(value(constant[name])))
        before = [] if name in done else [helper.make_node("Cast", [half], [f"{name}_float"], to=TensorProto.FLOAT)]
        done.add(name)
        edits[node.output[0]] = [
            *before,
            helper.make_node("MatMul", [node.input[0], f"{name}_float"], list(node.output)),
        ]
    replace(model.graph, edits)


def _fits(array: Array) -> bool:
    # Cut at the end of the range, one row out of thousands would point elsewhere.
    return bool(np.abs(array).max() <= _LARGEST)


def _halved(array: Array) -> Array:
    return np.asarray(array, np.float16)


def _cosine(graph: Path, out: Path, trial: Trial) -> float:
    try:
        return smallest_cosine(graph, out, trial)
    except ArtifactError:  # a conversion that onnxruntime refuses
        return -1.0
