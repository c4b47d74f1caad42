"""One file of an artifact, measured and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emb.artifact.manifest import Manifest, Variant, bytes_of
from emb.artifact.variants import same_file
from emb.data.probes import GROUPS, Sample
from emb.errors import first_line
from emb.progress import bar
from emb.quantize.vectors.ranges import as_floats
from emb.runtime.encoder import ArtifactEncoder
from emb.similarity import Vectors, cosines, truncated
from emb.validate.findings import Gate, Thresholds, VariantReport
from emb.validate.gates import gates_of
from emb.validate.parity import Runs, figures, run_settings, throughput

_WORST = 3


@dataclass(frozen=True)
class Measured:
    """What every file is measured with: texts, the slice's vectors, and the teacher's if it was found."""

    samples: list[Sample]
    reference: Vectors
    teacher_rows: list[int]
    teacher: Vectors | None

    def rows(self, group: str) -> list[int]:
        """Where the samples of `group` are."""
        return [index for index, sample in enumerate(self.samples) if sample.group == group]


def measure_variant(
    folder: Path, manifest: Manifest, variant: Variant, limits: Thresholds, measured: Measured, threads: int | None
) -> VariantReport:
    """Run one file in every setting, time it, and hold it to its gates; what its runtime raises is in the report."""
    size = bytes_of(folder, variant.file)
    report = VariantReport(
        variant.file,
        variant.weight_dtype,
        variant.vector_dtype,
        variant.quantizer,
        size,
        same_file(manifest, variant),
        exporter=variant.exporter,
    )
    try:
        with bar(variant.file, 4 * len(measured.samples)) as advance:
            start = time.perf_counter()
            encoder = ArtifactEncoder(folder, variant.file, threads, verify=False)
            report.load_seconds = time.perf_counter() - start
            runs = run_settings(encoder, measured.samples, advance)
    except Exception as error:  # whatever the runtime raises on a file is that file's failure
        report.error = first_line(error)
        report.gates = [Gate("runs", 0.0, 1.0, False)]
        return report
    texts = [sample.text for sample in measured.samples if sample.group == "text"]
    report.speed = throughput(
        lambda batch: encoder.encode_ids(encoder.tokenizer.encode(batch)),
        texts,
        sum(map(len, encoder.tokenizer.encode(texts))),
    )
    seconds = runs.seconds[measured.rows("text")]
    report.latency_ms = {
        name: 1000 * float(np.percentile(seconds, share)) for name, share in (("p50", 50), ("p95", 95))
    }
    return _judge(report, manifest, variant, limits, measured, runs)


def _judge(
    report: VariantReport, manifest: Manifest, variant: Variant, limits: Thresholds, measured: Measured, runs: Runs
) -> VariantReport:
    runs.vectors = {
        name: as_floats(vectors, variant.vector_dtype, manifest.calibration.get("ranges"), manifest.dim)
        for name, vectors in runs.vectors.items()
    }
    if variant.vector_dtype == "int8":
        # No code stands for "no direction": that of a text without a vector means nothing.
        without = ~measured.reference.any(axis=1, keepdims=True)
        runs.vectors = {name: np.where(without, 0.0, vectors) for name, vectors in runs.vectors.items()}
    expected = measured.reference if variant.vector_dtype != "ubinary" else np.where(measured.reference > 0, 1.0, -1.0)
    ordinary = measured.rows("text")
    report.settings = {name: figures(expected, vectors, ordinary) for name, vectors in runs.vectors.items()}
    # optimum traces the model as it is, and a BERT counts positions from the first column.
    report.ungated = ["mixed, left padding"] if variant.exporter == "optimum" else []
    runs.vectors = {name: vectors for name, vectors in runs.vectors.items() if name not in report.ungated}
    each = {name: cosines(expected, vectors) for name, vectors in runs.vectors.items()}
    for group in GROUPS:
        if rows := measured.rows(group):
            report.groups[group] = min(float(cosine[rows].min()) for cosine in each.values())
    report.worst = _worst(measured.samples, each)
    report.teacher = (
        against_teacher(measured, runs.vectors["as a client"]) if variant.vector_dtype != "ubinary" else None
    )
    report.gates = gates_of(report, variant, limits, expected, runs)
    report.passed = all(gate.passed for gate in report.gates)
    return report


def against_teacher(measured: Measured, vectors: Vectors) -> dict[str, float | None] | None:
    """Figures of `vectors` `(samples, dim)` against those of the teacher, if it was found."""
    return (
        None
        if measured.teacher is None
        else figures(measured.teacher, truncated(vectors[measured.teacher_rows], measured.teacher.shape[1]))
    )


def _worst(tried: Sequence[Sample], each: dict[str, Vectors]) -> list[dict[str, Any]]:
    names, table = list(each), np.stack(list(each.values()))
    lowest, rows = table.min(0), np.argsort(table.min(0), kind="stable")[:_WORST]
    return [
        {
            "cosine": float(lowest[row]),
            "setting": names[int(table[:, row].argmin())],
            "kind": tried[row].kind,
            "name": tried[row].name,
            "text": tried[row].text[:120],
        }
        for row in rows
    ]
