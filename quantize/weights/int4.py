"""4-bit weights, in the one form that the client programs run: blocks of 32 inputs, no zero points."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto

from emb.quantize.weights.matrices import BLOCK, quantize_tables, weight_only
from emb.quantize.weights.schemes import Scheme
from emb.tokens import Batch

FILE = "onnx/model_q4.onnx"  # the name that transformers.js opens for dtype "q4"
MIN_COSINE = 0.9  # to the fp32 slice, of any text (docs/validate.md says why)


def _build(model: ModelProto, batches: Sequence[Batch]) -> None:
    quantize_tables(model)
    weight_only(model, BLOCK, bits=4)


SCHEME = Scheme("weight-only-4bit", f"4-bit matrices, a scale per {BLOCK} inputs", _build)
