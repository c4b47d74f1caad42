"""Which matrices cost most in 8 bits: found by running the model with each of them alone so, not by name, by shape or
by its own error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from emb.quantize.weights.activations import Activation
from emb.quantize.weights.surgery import Array, clone, replace, scale_of, tensors, value, weighted
from emb.runtime.sessions import open_session, vector_output
from emb.similarity import Vectors, cosines
from emb.tokens import Batch

_BATCHES, _TOKENS = 6, 64  # of those to calibrate on where most is lost with all matrices in 8 bits, and of each


def sensitive(model: ModelProto, batches: Sequence[Batch], share: float, activation: Activation) -> set[str]:
    """The outputs of the `share` of matrices that move the vectors most in 8 bits, rounded up."""
    if not share:
        return set()
    moved = influences(model, batches, activation)
    return set(sorted(moved, key=lambda name: -moved[name])[: math.ceil(share * len(moved))])


def influences(model: ModelProto, batches: Sequence[Batch], activation: Activation) -> dict[str, float]:
    """For each matrix, by its output: 1 − the smallest cosine that any text's vector keeps with this matrix alone in 8
    bits.

    The error of a product says little about that. A few tokens have activations a thousand times larger than the
    rest (Sun et al. 2024, Massive Activations in Large Language Models, arXiv 2402.17762); what an early matrix
    loses on them the residual stream carries to the end, and layers on the way make more of it.
    """
    probe, cut = _Probe(model, activation), [(ids[:, :_TOKENS], mask[:, :_TOKENS]) for ids, mask in batches]
    plain = probe.vectors(cut)
    lost = [_lost(*pair) for pair in zip(plain, probe.vectors(cut, probe.names), strict=True)]
    worst = sorted(range(len(cut)), key=lambda index: -lost[index])[:_BATCHES]
    few, before = [cut[index] for index in worst], [plain[index] for index in worst]
    return {name: max(map(_lost, before, probe.vectors(few, [name]))) for name in probe.names}


def _lost(before: Vectors, after: Vectors) -> float:
    return 1 - float(np.nan_to_num(cosines(before, after), nan=-1.0).min())


class _Probe:
    """A model whose matrices can be put into 8 bits one by one: weights are inputs, and so is whether activations are
    rounded.
    """

    def __init__(self, model: ModelProto, activation: Activation) -> None:
        constant = tensors(model.graph)
        self.weights = {node.output[0]: value(constant[node.input[1]]) for node in weighted(model.graph)}
        self.names = list(self.weights)
        self.session = open_session(_opened(model, activation, self.weights).SerializeToString())
        self.output = [vector_output(self.session)]

    def vectors(self, batches: Sequence[Batch], rounded: Iterable[str] = ()) -> list[Vectors]:
        """Vectors `(batch, dim)` of each of `batches`, with the matrices `rounded` in 8 bits."""
        feeds: dict[str, Array] = {}
        for name, weight in self.weights.items():
            feeds |= {f"{name}_weight": weight, f"{name}_on": np.zeros((), np.float32)}
        for name in rounded:
            scale = scale_of(self.weights[name], 0)
            feeds |= {
                f"{name}_weight": np.round(self.weights[name] / scale) * scale,
                f"{name}_on": np.ones((), np.float32),
            }
        return [
            np.asarray(self.session.run(self.output, feeds | {"input_ids": ids, "attention_mask": mask})[0])
            for ids, mask in batches
        ]


def _opened(model: ModelProto, activation: Activation, weights: dict[str, Array]) -> ModelProto:
    opened, edits, done = clone(model), dict[str, list[NodeProto]](), set[str]()
    for node in weighted(opened.graph):
        source, out = node.input[0], node.output[0]
        before = [] if source in done else _rounding(opened, activation, source)
        done.add(source)
        edits[out] = [
            *before,
            helper.make_node("Mul", [f"{source}_error", f"{out}_on"], [f"{out}_error"]),
            helper.make_node("Add", [source, f"{out}_error"], [f"{out}_source"]),
            helper.make_node("MatMul", [f"{out}_source", f"{out}_weight"], [out]),
        ]
    replace(opened.graph, edits)
    for name, weight in weights.items():
        opened.graph.input.append(helper.make_tensor_value_info(f"{name}_weight", TensorProto.FLOAT, weight.shape))
        opened.graph.input.append(helper.make_tensor_value_info(f"{name}_on", TensorProto.FLOAT, ()))
    return opened


def _rounding(model: ModelProto, activation: Activation, source: str) -> list[NodeProto]:
    """Nodes that end in what rounding adds to `source`."""
    found = activation(model, source)
    steps, back = f"{source}_steps", f"{source}_back"
    nodes = [*found.nodes, helper.make_node("DequantizeLinear", [found.values, found.scale, found.zero], [steps])]
    if found.size:
        nodes.append(helper.make_node("Mul", [steps, found.size], [back]))
    return [*nodes, helper.make_node("Sub", [back if found.size else steps, source], [f"{source}_error"])]
