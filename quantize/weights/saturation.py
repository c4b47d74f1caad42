"""What 8 bits would lose on a processor that adds products in 16 bits.

Without VNNI, AVX2 and AVX512 multiply an unsigned by a signed byte and add two neighbouring products in 16 bits,
clipped: 2 × 255 × 127 does not fit. Weights of 7 bits always do (2 × 255 × 63 = 32,130), which onnxruntime calls
`reduce_range`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from emb.quantize.weights.surgery import Array, clone, tensors
from emb.runtime.sessions import open_session
from emb.tokens import Batch

SEVEN_BITS, EIGHT_BITS = 63, 127  # largest weight
_LARGEST = 2**15 - 1
_TOKENS = 32  # of each batch and matrix: every sum of two products is looked at


def overflow(model: ModelProto, batches: Sequence[Batch]) -> float:
    """The share, 0 to 1, of sums of two neighbouring products in a quantised `model` that do not fit into 16 bits."""
    constant = tensors(model.graph)
    nodes = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    sources = list(dict.fromkeys(node.input[0] for node in nodes))
    if not sources:
        return 0.0
    probed = clone(model)
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in sources)
    session = open_session(probed.SerializeToString())
    beyond = total = 0
    for ids, mask in batches:
        found = dict(zip(sources, session.run(sources, {"input_ids": ids, "attention_mask": mask}), strict=True))
        for node in nodes:
            sums = _pair_sums(found[node.input[0]], numpy_helper.to_array(constant[node.input[1]]))
            beyond, total = beyond + int((np.abs(sums) > _LARGEST).sum()), total + sums.size
    return beyond / total


def _pair_sums(values: Array, weight: Array) -> Array:
    """Products `(tokens, inputs / 2, outputs)` int32, two neighbouring inputs added."""
    rows = values.reshape(-1, values.shape[-1])[:_TOKENS].astype(np.int32)
    even = weight.shape[0] // 2 * 2
    products = [
        rows[:, part, None] * weight[None, part].astype(np.int32) for part in (slice(0, even, 2), slice(1, even, 2))
    ]
    return np.asarray(products[0] + products[1])
