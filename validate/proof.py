"""The proof of an artifact: every model file in it, run as clients run it, against the model it came from."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Manifest, is_artifact, no_artifact, what_else
from emb.artifact.runs import newest_export
from emb.artifact.variants import distinct
from emb.data.hard_texts import hard_samples, row_norms
from emb.data.probes import GROUPS, Sample, probes, samples
from emb.data.run_texts import texts_for
from emb.errors import ArtifactError, UsageError
from emb.files import write_json
from emb.machine import processor
from emb.model.embedding_model import open_sentence_transformer
from emb.progress import note
from emb.runtime.engine import library_of, require_library
from emb.similarity import Vectors, truncated
from emb.teachers.lookup import teacher_source
from emb.tokens import TextTokenizer, count_cut, prompt_of, tell
from emb.validate.findings import ParityReport, Thresholds
from emb.validate.parity import by_kind, reference_vectors, throughput
from emb.validate.variant import Measured, against_teacher, measure_variant

_Ask = Callable[[list[Sample]], tuple[dict[str, Any], Vectors | None]]
_TEACHER_TEXTS = 200  # the teacher is the slowest model at hand, and its figure is not gated


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
    trust_remote_code: bool = False,
) -> ParityReport:
    """Compare each model file of an exported artifact with the torch model in the same folder.

    Writes `parity.json` and `report.html` into the folder and marks every file in `emb.json` as passed or not;
    nothing is deleted.

    Args:
        artifact: the folder; None takes the newest export of the latest run.
        against: a model to compare with as well; None takes the teacher, if it can be found here.
        data: texts to compare on, as `emb distill --data` takes them; none means default ones.
        texts: texts themselves, in place of `data`.
        min_cosine: the gate of int8, in place of 0.99 or of what the artifact was exported with.
        verify: refuse a folder in which a file has changed since it was written.
        threads: of onnxruntime; None means one per core.
        trust_remote_code: let the artifact, and the model it is compared with, run code of their own.

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
    note("torch slice")
    model = open_sentence_transformer(folder, trust_remote_code=trust_remote_code)
    tokenizer = TextTokenizer.from_folder(folder, manifest.max_length)
    ordinary = [each for each in tried if each.group == "text"]  # others are made to be too long
    tell(
        count_cut(
            tokenizer, [each.text for each in ordinary], [prompt_of(manifest.prompts, each.kind) for each in ordinary]
        ),
        "texts to validate on",
    )
    tried += hard_samples(tokenizer, row_norms(model))
    note(f"{folder}: {len(tried)} texts ({origin}), {len(distinct(manifest))} files")
    teacher = partial(_teacher_vectors, folder, manifest, against, trust_remote_code)
    report = _measure(folder, manifest, model, limits, tried, origin, teacher, threads)
    _write(folder, manifest, report)
    return report


def _open(folder: Path, verify: bool) -> Manifest:
    if not is_artifact(folder):
        if what_else(folder) == "an index":
            raise ArtifactError(f"{folder}: an index, not an export", f"run: emb validate {folder}")
        raise no_artifact(folder)
    manifest = Manifest.load(folder)
    if not manifest.variants:
        raise ArtifactError(f"{folder}: holds no ONNX file to validate", f"run: emb export {folder}")
    for variant in manifest.variants:
        require_library(variant.file)  # said at once: a file is not at fault for what is not installed
    if verify:
        manifest.verify(folder)
    return manifest


def _int8_gate(manifest: Manifest, asked: float | None) -> float:
    own = manifest.lineage.quantization
    return asked if asked is not None else own.min_cosine if own else Thresholds.int8


def _samples(
    folder: Path, manifest: Manifest, data: Sequence[str], texts: Sequence[str] | None, limit: int
) -> tuple[list[Sample], str]:
    if texts is not None:
        ordinary, origin = samples(list(texts)[:limit]), "texts given"
    else:
        found, origin = texts_for(folder, limit, data, backwards=True)
        ordinary = [Sample(item.text, item.kind) for item in found]
    if not ordinary:
        raise UsageError("no text to validate on", "give at least one")
    return ordinary + probes(manifest.max_length), origin


def _measure(
    folder: Path,
    manifest: Manifest,
    model: Any,
    limits: Thresholds,
    tried: list[Sample],
    origin: str,
    teacher: _Ask,
    threads: int | None,
) -> ParityReport:
    reference = reference_vectors(model, tried)
    ordinary = [index for index, sample in enumerate(tried) if sample.group == "text"][:_TEACHER_TEXTS]
    known, vectors = teacher([tried[index] for index in ordinary])
    measured = Measured(tried, reference, ordinary, vectors)
    reports = [measure_variant(folder, manifest, variant, limits, measured, threads) for variant in distinct(manifest)]
    own = {
        "speed": _slice_speed(model, TextTokenizer.from_folder(folder, manifest.max_length), tried),
        "teacher": against_teacher(measured, reference),
    }
    texts = {group: sum(sample.group == group for sample in tried) for group in GROUPS}
    passed = all(report.passed for report in reports)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    healing = manifest.lineage.healing
    shown = healing if healing and healing.files else None
    return ParityReport(
        str(folder),
        manifest.kind,
        manifest.layers,
        manifest.dim,
        passed,
        now,
        _machine(manifest, threads),
        texts,
        origin,
        reports,
        own,
        known,
        shown,
    )


def _teacher_vectors(
    folder: Path, manifest: Manifest, against: str | Path | None, trust_remote_code: bool, tried: list[Sample]
) -> tuple[dict[str, Any], Vectors | None]:
    source, reason = teacher_source(folder, manifest, against, trust_remote_code=trust_remote_code)
    if source is None:
        return {"name": None, "reason": reason}, None
    from emb.runtime.torch_encoder import load_torch

    note(f"teacher: {source.name}, {len(tried)} texts")
    encoder = load_torch(source.path, trust_remote_code=trust_remote_code)
    if encoder.dim < manifest.dim:
        return {"name": source.name, "reason": f"it has {encoder.dim} dims and the artifact {manifest.dim}"}, None
    vectors = by_kind(tried, lambda texts, kind: encoder.encode(texts, kind=kind))
    return {"name": source.name, "reason": None, "dim": encoder.dim, "texts": len(tried)}, truncated(
        vectors, manifest.dim
    )


def _slice_speed(model: Any, tokenizer: TextTokenizer, tried: Sequence[Sample]) -> dict[str, float]:
    texts = [sample.text for sample in tried if sample.group == "text"]
    return throughput(
        lambda batch: model.encode(list(batch), show_progress_bar=False), texts, sum(map(len, tokenizer.encode(texts)))
    )


def _machine(manifest: Manifest, threads: int | None) -> dict[str, Any]:
    runtimes = {
        name: str(import_module(name).__version__).split("-")[0]
        for name in sorted({"onnxruntime", *(library_of(variant.file) for variant in manifest.variants)})
    }
    return {
        "processor": processor(),
        "threads": threads or os.cpu_count(),
        **runtimes,
        "python": platform.python_version(),
    }


def _write(folder: Path, manifest: Manifest, report: ParityReport) -> None:
    from emb.validate.report import write_report

    for found in report.variants:
        for file in (found.file, *found.same_as):
            variant = manifest.variant(file)
            variant.passed, variant.min_cosine = found.passed, found.min_cosine
    manifest.write(folder)
    write_json(folder / "parity.json", dataclasses.asdict(report))
    write_report(folder, manifest, report)
