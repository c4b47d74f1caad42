"""The proof of an artifact: every model file in it, run as clients run it, against the model it came from."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from emb.encoder import OnnxEncoder
from emb.engine import library_of, require_library
from emb.errors import ArtifactError, UsageError
from emb.export.parity import Runs, by_kind, figures, invariance, length_error, reference_vectors, run_settings, throughput
from emb.export.probes import Sample, probes, samples
from emb.export.teacher import teacher_source
from emb.export.texts import texts_for
from emb.export.variants import as_floats, distinct, same_file
from emb.files import write_json
from emb.machine import processor
from emb.manifest import Manifest, Variant, bytes_of, is_artifact
from emb.model import open_sentence_transformer
from emb.progress import bar, note
from emb.quantize.int4 import MIN_COSINE
from emb.runs import newest_export
from emb.similarity import Vectors, cosines, truncated

_TEACHER_TEXTS = 200  # the teacher is the slowest model at hand, and its figure is not gated
_WORST = 3


@dataclass(frozen=True)
class Thresholds:
    """What a file must reach.

    Attributes:
        fp32, fp16, int8, int4: smallest cosine of any text, under any setting, to the torch slice.
        alone_fp32, alone_fp16, alone_int8, alone_int4: smallest cosine of any text between batch 1 and
            mixed batches: an index must not depend on who was encoded beside whom.
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
    """One demand on one file; `limit` is a minimum, or a maximum where `at_most` is set; `value` is None if not finite."""

    name: str
    value: float | None
    limit: float
    passed: bool
    at_most: bool = False


@dataclass
class VariantReport:
    """One file: how close, how large, how fast.

    Attributes:
        settings: the figures of `similarity.Parity` to the torch slice, by setting; the geometry
            (Spearman, overlap) is that of the ordinary texts.
        groups: the smallest cosine of any setting over ordinary, odd and long texts.
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
        return min((float(one["min_cosine"] or 0.0) for name, one in self.settings.items() if name not in self.ungated), default=0.0)


@dataclass
class ParityReport:
    """What `emb validate` found; `parity.json` is this, as it is.

    Attributes:
        texts: number of ordinary, odd and long texts tried.
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
    healing: dict[str, Any] | None = None

    def __str__(self) -> str:
        from emb.export.report import as_text

        return as_text(self)


@dataclass(frozen=True)
class _Measured:
    """What every file is measured with: texts, the slice's vectors, and the teacher's if it was found."""

    samples: list[Sample]
    reference: Vectors
    teacher_rows: list[int]
    teacher: Vectors | None

    def rows(self, group: str) -> list[int]:
        """Where the samples of `group` are."""
        return [index for index, sample in enumerate(self.samples) if sample.group == group]


def validate(
    artifact: str | Path | None = None,
    *,
    against: str | Path | None = None,
    data: Sequence[str] = (),
    texts: Sequence[str] | None = None,
    max_texts: int = 500,
    min_cosine: float | None = None,
    thresholds: Thresholds | None = None,
    verify: bool = True,
    threads: int | None = None,
) -> ParityReport:
    """Compare each model file of an exported artifact with the torch model in the same folder.

    Writes `parity.json` and `report.html` into the folder and marks every file in `emb.json` as
    passed or not; nothing is deleted.

    Args:
        artifact: the folder; None takes the newest export of the latest run.
        against: a model to compare with as well; None takes the teacher, if it can be found here.
        data: texts to compare on, as `emb distill --data` takes them; none means default ones.
        texts: texts themselves, in place of `data`.
        min_cosine: the gate of int8, in place of 0.99 or of what the artifact was exported with.
        verify: refuse a folder in which a file has changed since it was written.
        threads: of onnxruntime; None means one per core.

    Raises:
        ArtifactError: not an exported artifact, or changed since it was written.
        DataError: `data` cannot be read.
        MissingExtra: the runtime of a file is not installed.
        TeacherError: `against` cannot be found.
    """
    folder = Path(artifact) if artifact is not None else newest_export()
    manifest = _open(folder, verify)
    limits = thresholds or Thresholds(int8=_int8_gate(manifest, min_cosine))
    tried, origin = _samples(folder, manifest, data, texts, max_texts)
    note(f"{folder}: {len(tried)} texts ({origin}), {len(distinct(manifest))} files")
    report = _measure(folder, manifest, limits, tried, origin, against, threads)
    _write(folder, manifest, report)
    return report


def _open(folder: Path, verify: bool) -> Manifest:
    if not is_artifact(folder):
        raise ArtifactError(f"{folder}: not an artifact of emb (it has no emb.json)", f"run: emb export {folder}")
    manifest = Manifest.load(folder)
    if not manifest.variants:
        raise ArtifactError(f"{folder}: holds no ONNX file to validate", f"run: emb export {folder}")
    for variant in manifest.variants:
        require_library(variant.file)  # said at once: a file is not at fault for what is not installed
    if verify:
        manifest.verify(folder)
    return manifest


def _int8_gate(manifest: Manifest, asked: float | None) -> float:
    own = manifest.lineage.get("quantization") or {}
    return asked if asked is not None else float(own.get("min_cosine") or Thresholds.int8)


def _samples(folder: Path, manifest: Manifest, data: Sequence[str], texts: Sequence[str] | None, limit: int) -> tuple[list[Sample], str]:
    if texts is not None:
        ordinary, origin = samples(list(texts)[:limit]), "texts given"
    else:
        found, origin = texts_for(folder, limit, data, backwards=True)
        ordinary = [Sample(item.text, item.kind) for item in found]
    if not ordinary:
        raise UsageError("no text to validate on", "give at least one")
    return ordinary + probes(manifest.max_length), origin


def _measure(folder: Path, manifest: Manifest, limits: Thresholds, tried: list[Sample], origin: str, against: str | Path | None, threads: int | None) -> ParityReport:
    note("torch slice")
    model = open_sentence_transformer(folder)
    reference = reference_vectors(model, tried)
    ordinary = [index for index, sample in enumerate(tried) if sample.group == "text"][:_TEACHER_TEXTS]
    teacher, vectors = _teacher(manifest, against, [tried[index] for index in ordinary])
    measured = _Measured(tried, reference, ordinary, vectors)
    reports = [_variant(folder, manifest, variant, limits, measured, threads) for variant in distinct(manifest)]
    own = {"speed": _slice_speed(model, tried), "teacher": _against_teacher(measured, reference)}
    texts = {group: sum(sample.group == group for sample in tried) for group in ("text", "odd", "long")}
    passed = all(report.passed for report in reports)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    healing = manifest.lineage.get("healing")
    shown = healing if healing and healing["files"] else None
    return ParityReport(str(folder), manifest.kind, manifest.layers, manifest.dim, passed, now, _machine(manifest, threads), texts, origin, reports, own, teacher, shown)


def _teacher(manifest: Manifest, against: str | Path | None, tried: list[Sample]) -> tuple[dict[str, Any], Vectors | None]:
    source, reason = teacher_source(manifest, against)
    if source is None:
        return {"name": None, "reason": reason}, None
    from emb.torch_encoder import load_torch

    note(f"teacher: {source.name}, {len(tried)} texts")
    encoder = load_torch(source)
    if encoder.dim < manifest.dim:
        return {"name": source.name, "reason": f"it has {encoder.dim} dims and the artifact {manifest.dim}"}, None
    vectors = by_kind(tried, lambda texts, kind: encoder.encode(texts, kind=kind))
    return {"name": source.name, "reason": None, "dim": encoder.dim, "texts": len(tried)}, truncated(vectors, manifest.dim)


def _variant(folder: Path, manifest: Manifest, variant: Variant, limits: Thresholds, measured: _Measured, threads: int | None) -> VariantReport:
    size = bytes_of(folder, variant.file)
    report = VariantReport(variant.file, variant.weight_dtype, variant.vector_dtype, variant.quantizer, size, same_file(manifest, variant), exporter=variant.exporter)
    try:
        with bar(variant.file, 4 * len(measured.samples)) as advance:
            start = time.perf_counter()
            encoder = OnnxEncoder(folder, variant.file, threads)
            report.load_seconds = time.perf_counter() - start
            runs = run_settings(encoder, measured.samples, advance)
    except Exception as error:  # whatever the runtime raises on a file is that file's failure
        report.error = str(error).splitlines()[0]
        report.gates = [Gate("runs", 0.0, 1.0, False)]
        return report
    texts = [sample.text for sample in measured.samples if sample.group == "text"]
    report.speed = throughput(lambda batch: encoder.encode(batch), texts, sum(map(len, encoder.tokenizer.encode(texts))))
    seconds = runs.seconds[measured.rows("text")]
    report.latency_ms = {name: 1000 * float(np.percentile(seconds, share)) for name, share in (("p50", 50), ("p95", 95))}
    return _judge(report, manifest, variant, limits, measured, runs)


def _judge(report: VariantReport, manifest: Manifest, variant: Variant, limits: Thresholds, measured: _Measured, runs: Runs) -> VariantReport:
    runs.vectors = {name: as_floats(vectors, variant, manifest) for name, vectors in runs.vectors.items()}
    expected = measured.reference if variant.vector_dtype != "ubinary" else np.where(measured.reference > 0, 1.0, -1.0)
    ordinary = measured.rows("text")
    report.settings = {name: figures(expected, vectors, ordinary) for name, vectors in runs.vectors.items()}
    # optimum traces the model as it is, and a BERT counts positions from the first column.
    report.ungated = ["mixed, left padding"] if variant.exporter == "optimum" else []
    runs.vectors = {name: vectors for name, vectors in runs.vectors.items() if name not in report.ungated}
    each = {name: cosines(expected, vectors) for name, vectors in runs.vectors.items()}
    for group in ("text", "odd", "long"):
        if rows := measured.rows(group):
            report.groups[group] = min(float(cosine[rows].min()) for cosine in each.values())
    report.worst = _worst(measured.samples, each)
    report.teacher = _against_teacher(measured, runs.vectors["as a client"]) if variant.vector_dtype != "ubinary" else None
    report.gates = _gates(report, variant, limits, expected, runs)
    report.passed = all(gate.passed for gate in report.gates)
    return report


def _against_teacher(measured: _Measured, vectors: Vectors) -> dict[str, float | None] | None:
    return None if measured.teacher is None else figures(measured.teacher, truncated(vectors[measured.teacher_rows], measured.teacher.shape[1]))


def _worst(tried: Sequence[Sample], each: dict[str, Vectors]) -> list[dict[str, Any]]:
    names, table = list(each), np.stack(list(each.values()))
    lowest, rows = table.min(0), np.argsort(table.min(0), kind="stable")[:_WORST]
    return [
        {"cosine": float(lowest[row]), "setting": names[int(table[:, row].argmin())], "kind": tried[row].kind, "name": tried[row].name, "text": tried[row].text[:120]}
        for row in rows
    ]


def _gates(report: VariantReport, variant: Variant, limits: Thresholds, expected: Vectors, runs: Runs) -> list[Gate]:
    if variant.vector_dtype == "ubinary":
        return _bit_gates(expected, runs, limits.cosine(variant.weight_dtype))
    least = limits.cosine(variant.weight_dtype) if variant.vector_dtype == "float32" else min(limits.cosine(variant.weight_dtype), limits.int8)
    gates = [_at_least("min cosine to the torch slice", report.min_cosine, least)]
    if variant.vector_dtype == "float32":
        error = max(length_error(expected, vectors) for vectors in runs.vectors.values())
        gates.append(_at_most("vector length", error, limits.length * (1 if variant.weight_dtype == "fp32" else 10)))
    alone = limits.alone(variant.weight_dtype)
    return [*gates, _at_least("min cosine of batch 1 to mixed batches", invariance(runs), alone if variant.vector_dtype == "float32" else min(least, alone))]


def _bit_gates(expected: Vectors, runs: Runs, cosine: float) -> list[Gate]:
    # Vectors at an angle t disagree in t/pi of their signs (Charikar 2002, random hyperplanes). One
    # text may lose three times what the gate's cosine would cost, and never fails for two bits.
    loss = math.acos(cosine) / math.pi
    agreement = [(1 + cosines(expected, vectors)) / 2 for vectors in runs.vectors.values()]
    return [
        _at_least("mean agreement of bits with the torch slice", min(float(each.mean()) for each in agreement), 1 - loss),
        _at_least("min agreement of bits with the torch slice", min(float(each.min()) for each in agreement), 1 - max(2 / expected.shape[1], 3 * loss)),
    ]


def _at_least(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value, limit, value >= limit)


def _at_most(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value if math.isfinite(value) else None, limit, value <= limit, at_most=True)


def _slice_speed(model: Any, tried: Sequence[Sample]) -> dict[str, float]:
    texts = [sample.text for sample in tried if sample.group == "text"]
    tokens = sum(len(row) for row in model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"])
    return throughput(lambda batch: model.encode(list(batch), show_progress_bar=False), texts, tokens)


def _machine(manifest: Manifest, threads: int | None) -> dict[str, Any]:
    runtimes = {name: str(import_module(name).__version__).split("-")[0] for name in sorted({"onnxruntime", *(library_of(variant.file) for variant in manifest.variants)})}
    return {"processor": processor(), "threads": threads or os.cpu_count(), **runtimes, "python": platform.python_version()}


def _write(folder: Path, manifest: Manifest, report: ParityReport) -> None:
    from emb.export.report import write_report

    for found in report.variants:
        for file in (found.file, *found.same_as):
            variant = manifest.variant(file)
            variant.passed, variant.min_cosine = found.passed, found.min_cosine
    manifest.write(folder)
    write_json(folder / "parity.json", dataclasses.asdict(report))
    write_report(folder, manifest, report)
