"""What each file has to reach, and whether it did."""

from __future__ import annotations

import math

from emb.artifact.manifest import Variant
from emb.similarity import Vectors, cosines
from emb.validate.findings import Gate, Thresholds, VariantReport
from emb.validate.parity import Runs, invariance, length_error


def gates_of(report: VariantReport, variant: Variant, limits: Thresholds, expected: Vectors, runs: Runs) -> list[Gate]:
    """Every demand on one file whose vectors are in `runs`, with what was found."""
    if variant.vector_dtype == "ubinary":
        return _bit_gates(expected, runs, limits.cosine(variant.weight_dtype))
    least = (
        limits.cosine(variant.weight_dtype)
        if variant.vector_dtype == "float32"
        else min(limits.cosine(variant.weight_dtype), limits.int8)
    )
    gates = [_at_least("min cosine to the torch slice", report.min_cosine, least)]
    if variant.vector_dtype == "float32":
        error = max(length_error(expected, vectors) for vectors in runs.vectors.values())
        gates.append(_at_most("vector length", error, limits.length * (1 if variant.weight_dtype == "fp32" else 10)))
    alone = limits.alone(variant.weight_dtype)
    return [
        *gates,
        _at_least(
            "min cosine of batch 1 to mixed batches",
            invariance(runs),
            alone if variant.vector_dtype == "float32" else min(least, alone),
        ),
    ]


def _bit_gates(expected: Vectors, runs: Runs, cosine: float) -> list[Gate]:
    # Vectors at an angle t disagree in t/pi of their signs (Charikar 2002, random hyperplanes). One
    # text may lose three times what the gate's cosine would cost, and never fails for two bits.
    loss = math.acos(cosine) / math.pi
    agreement = [(1 + cosines(expected, vectors)) / 2 for vectors in runs.vectors.values()]
    return [
        _at_least(
            "mean agreement of bits with the torch slice", min(float(each.mean()) for each in agreement), 1 - loss
        ),
        _at_least(
            "min agreement of bits with the torch slice",
            min(float(each.min()) for each in agreement),
            1 - max(2 / expected.shape[1], 3 * loss),
        ),
    ]


def _at_least(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value, limit, value >= limit)


def _at_most(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value if math.isfinite(value) else None, limit, value <= limit, at_most=True)
