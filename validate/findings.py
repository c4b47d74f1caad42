"""What a validation found, and the demands it was held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emb.artifact.lineage import HealingRecord
from emb.quantize.weights.int4 import MIN_COSINE


@dataclass(frozen=True)
class Thresholds:
    """What a file must reach.

    Attributes:
        fp32, fp16, int8, int4: smallest cosine of any text, under any setting, to the torch slice.
        alone_fp32, alone_fp16, alone_int8, alone_int4: smallest cosine of any text between batch 1 and mixed
            batches: an index must not depend on who was encoded beside whom.
        length: largest relative error of a vector's length, for fp32; ten times that for others.
    """

    fp32: float = 0.99999
    fp16: float = 0.9999
    int8: float = 0.99
    int4: float = MIN_COSINE
    alone_fp32: float = 0.99999
    alone_fp16: float = 0.9999
    alone_int8: float = 0.999
    alone_int4: float = 0.999
    length: float = 1e-3

    def cosine(self, weight_dtype: str) -> float:
        """The smallest cosine to the slice allowed for files of `weight_dtype`."""
        return float(getattr(self, weight_dtype))

    def alone(self, weight_dtype: str) -> float:
        """The smallest cosine of batch 1 to mixed batches allowed for files of `weight_dtype`."""
        return float(getattr(self, f"alone_{weight_dtype}"))


@dataclass(frozen=True)
class Gate:
    """One demand on one file; `limit` is a minimum, or a maximum where `at_most` is set; `value` None is not finite."""

    name: str
    value: float | None
    limit: float
    passed: bool
    at_most: bool = False


@dataclass
class VariantReport:
    """One file: how close, how large, how fast.

    Attributes:
        settings: the figures of `similarity.Parity` to the torch slice, by setting; the geometry (Spearman,
            overlap) is that of the ordinary texts.
        groups: the smallest cosine of any setting over ordinary, odd, long and hard texts.
        teacher: figures against the teacher's vectors cut to the same dim, if it was at hand.
        worst: the texts that moved most, each with its cosine and setting.
        latency_ms: p50 and p95 of encoding one text, tokenisation included, over the ordinary texts.
        error: what its runtime said, if the file did not run.
        exporter: who wrote the graph.
        ungated: settings that are shown and not judged, since its exporter does not promise them.
    """

    file: str
    weight_dtype: str
    vector_dtype: str
    quantizer: str | None
    bytes: int
    same_as: list[str] = field(default_factory=list)
    load_seconds: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    settings: dict[str, dict[str, float | None]] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)
    teacher: dict[str, float | None] | None = None
    worst: list[dict[str, Any]] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    error: str | None = None
    passed: bool = False
    exporter: str = "emb"
    ungated: list[str] = field(default_factory=list)

    @property
    def min_cosine(self) -> float:
        """The smallest cosine to the torch slice of any text under any setting that is judged."""
        return min(
            (float(one["min_cosine"] or 0.0) for name, one in self.settings.items() if name not in self.ungated),
            default=0.0,
        )


@dataclass
class ParityReport:
    """What `emb validate` found; `parity.json` is this, as it is.

    Attributes:
        texts: number of ordinary, odd, long and hard texts tried.
        origin: where the ordinary ones come from.
        slice: the torch folder itself: its speed, and its figures against the teacher.
        teacher: whom the teacher figures are against, or why there are none.
        healing: how the slice was healed and what each file gained, as the manifest has it; None if it was not.
    """

    artifact: str
    kind: str
    layers: int
    dim: int
    passed: bool
    created: str
    machine: dict[str, Any]
    texts: dict[str, int]
    origin: str
    variants: list[VariantReport]
    slice: dict[str, Any]
    teacher: dict[str, Any]
    healing: HealingRecord | None = None

    def __str__(self) -> str:
        from emb.validate.terminal import as_text

        return as_text(self)
