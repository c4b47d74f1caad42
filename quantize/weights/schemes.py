"""8-bit weights: the ways to make them, each an edit of the float graph.

Three things differ between schemes: how activations meet 8-bit weights (quantised per batch, per token or by fixed
ranges, or weights alone stored in 8 bits), whether the most sensitive matrices are treated differently, and whether
outlier channels are moved from activations into weights first. Embedding tables are int8 with one scale per row in
all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import onnx
from onnx import ModelProto

from emb.quantize.weights.activations import Activation, fixed, per_batch, per_token
from emb.quantize.weights.fitting import to_fit
from emb.quantize.weights.matrices import BLOCK, integer, quantize_tables, stored, weight_only
from emb.quantize.weights.saturation import EIGHT_BITS
from emb.quantize.weights.sensitive import sensitive
from emb.quantize.weights.smoothing import smooth
from emb.quantize.weights.surgery import clone, graph_bytes, weighted
from emb.tokens import Batch

CALIBRATED_BELOW = 1_500_000_000  # bytes
_CLIPPED = 1e-4  # share of each text's values, on either side, that the clipped ranges leave out
_KEPT = 1 / 6  # share of the matrices that are kept finer than the others; a MiniLM of 6 layers has 37
_IN_FLOAT = 1 / 2  # share of the matrices that are computed with in float, where that is needed
_KEPT_BLOCK = 128  # inputs that share a scale in either
Build = Callable[[ModelProto, Sequence[Batch]], None]
Keep = Callable[[ModelProto, int, set[str]], None]


@dataclass(frozen=True)
class Scheme:
    """One way to 8 bits.

    Attributes:
        name: as it appears in reports.
        what: one sentence about it.
        build: edits the float graph in place, with padded batches to calibrate on.
        spare: what it is held back for: "gate" is tried only where no other passes, "limit" where none that passes is
            small enough.
    """

    name: str
    what: str
    build: Build
    spare: Literal["gate", "limit"] | None = None


def schemes(graph: Path, largest: int = EIGHT_BITS, limit: int | None = None) -> list[Scheme]:
    """The schemes to try on a graph of this size; calibration runs in memory, so large graphs go without.

    `largest` is the largest int8 weight: 63 keeps sums of products within 16 bits (`quantize.saturation`). With a
    `limit` in bytes there are spare ones, which keep to it by giving up bits. Where there is no matrix, as in a static
    encoder, all would write the same file: there is one.
    """
    if graph_bytes(graph) < CALIBRATED_BELOW and not weighted(onnx.load(str(graph)).graph):
        return [Scheme("tables", "int8 tables, a scale per row", lambda model, _: quantize_tables(model))]
    found = [
        Scheme("dynamic", "int8 matrices, activations quantised per batch", partial(_dynamic, largest=largest)),
        Scheme("weight-only-128", "8-bit matrices, a scale per 128 inputs", partial(_weight_only, block=128)),
        Scheme("weight-only-32", "8-bit matrices, a scale per 32 inputs", partial(_weight_only, block=32)),
    ]
    rescue = Scheme("stored-128", "matrices in 8 bits, a scale per 128 inputs, computed with in float", _stored, "gate")
    static, per_token = partial(_static, largest=largest), partial(_per_token, largest=largest)
    calibrated = [
        Scheme(
            "dynamic-kept",
            "dynamic, the most sensitive matrices weight-only",
            partial(_dynamic, largest=largest, kept=_KEPT),
        ),
        Scheme("static-smooth", "int8 matrices, activations smoothed and quantised by fixed ranges", static),
        Scheme(
            "static-smooth-clipped",
            "the same, ranges without the outermost values of each text",
            partial(static, clipped=_CLIPPED),
        ),
        Scheme(
            "static-smooth-kept", "static-smooth, the most sensitive matrices weight-only", partial(static, kept=_KEPT)
        ),
        Scheme("per-token-smooth", "int8 matrices, activations smoothed and quantised per token", per_token),
        Scheme(
            "per-token-smooth-kept", "the same, the most sensitive matrices weight-only", partial(per_token, kept=_KEPT)
        ),
        Scheme(
            "per-token-smooth-float",
            "the same with half of the matrices, and those computed with in float",
            partial(per_token, kept=_IN_FLOAT, keep=stored),
            "gate",
        ),
    ]
    fitted = [
        Scheme(
            "static-smooth-4bit",
            "static-smooth, as many matrices in 4 bits as it takes to fit",
            partial(_fitted, limit=limit or 0, build=static),
            "limit",
        ),
        Scheme(
            "per-token-smooth-4bit",
            "per-token-smooth, likewise",
            partial(_fitted, limit=limit or 0, build=per_token),
            "limit",
        ),
    ]
    return [*found, rescue, *(calibrated + (fitted if limit else []) if graph_bytes(graph) < CALIBRATED_BELOW else [])]


def _dynamic(model: ModelProto, batches: Sequence[Batch], largest: int, kept: float = 0.0) -> None:
    _finish(model, batches, per_batch, largest, kept)


def _weight_only(model: ModelProto, batches: Sequence[Batch], block: int) -> None:
    quantize_tables(model)
    weight_only(model, block)


def _stored(model: ModelProto, batches: Sequence[Batch]) -> None:
    quantize_tables(model)
    stored(model, _KEPT_BLOCK)


def _per_token(
    model: ModelProto, batches: Sequence[Batch], largest: int, kept: float = 0.0, keep: Keep = weight_only
) -> None:
    smooth(model, batches)
    _finish(model, batches, per_token, largest, kept, keep)


def _static(model: ModelProto, batches: Sequence[Batch], largest: int, kept: float = 0.0, clipped: float = 0.0) -> None:
    smooth(model, batches)
    _finish(model, batches, fixed(model, batches, clipped), largest, kept)


def _fitted(model: ModelProto, batches: Sequence[Batch], limit: int, build: Build) -> None:
    whole = clone(model)
    build(whole, batches)
    weight_only(model, BLOCK, to_fit(model, batches, whole.ByteSize() - limit), bits=4)
    build(model, batches)


def _finish(
    model: ModelProto,
    batches: Sequence[Batch],
    activation: Activation,
    largest: int,
    kept: float,
    keep: Keep = weight_only,
) -> None:
    """Tables, the share `kept` of the matrices as `keep` makes them, and the others multiplied in whole numbers."""
    chosen = sensitive(model, batches, kept, activation)
    quantize_tables(model)
    if chosen:
        keep(model, _KEPT_BLOCK, chosen)
    integer(model, activation, largest)
