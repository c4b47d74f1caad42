"""Choosing the int8 weights by measurement: every scheme is built, compared, timed; the fastest that passes wins."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from emb.artifact.lineage import Candidate
from emb.errors import ArtifactError
from emb.progress import bar, warn
from emb.quantize.weights.candidate import measured
from emb.quantize.weights.judge import Trial, if_same, runner, settings
from emb.quantize.weights.saturation import overflow
from emb.quantize.weights.schemes import CALIBRATED_BELOW, Scheme, schemes
from emb.quantize.weights.surgery import graph_bytes, save_graph
from emb.similarity import Vectors
from emb.tokens import Rows

ROUNDS = 5
TIMED = 48  # texts whose throughput is measured: the ordinary ones, which come first
SHORT = 16  # tokens of the text whose latency is measured
_SPREAD = 8  # one in so many calibration batches is searched for sums that overflow


def select_int8(
    graph: Path, fused: Path, out: Path, trial: Trial, min_cosine: float = 0.99, known: str | None = None
) -> list[Candidate]:
    """Write the best 8-bit form of `graph` to `out`; return all candidates, the chosen one marked.

    Each is held against the fp32 `graph` alone and in mixed batches, padded on either side: the smallest cosine of
    all texts must reach `min_cosine`, and that of a text alone to the same text in a batch `ALONE`. Those that pass
    within the trial's limit are ranked by the product of speed at one short text and at mixed lengths; if none is
    small enough, the smallest that passes is written, and if none passes, the closest, whose `passed` is False.
    `fused` is the same graph with fused operators, to build from.

    `known` names the scheme that won on the same layers at another dim: if it passes and fits here too, the others are
    not tried.
    """
    every = schemes(graph, trial.largest, trial.limit)
    scratch = out.parent / ".candidates"
    scratch.mkdir(parents=True)
    try_all = _Tries(if_same(graph, fused, trial), scratch, trial, settings(runner(graph, trial), trial), min_cosine)
    found = try_all([scheme for scheme in every if scheme.name == known])
    if not _small(found, trial.limit):
        found = try_all([scheme for scheme in every if scheme.spare is None])
        if not any(each.passed for each in found):
            found += try_all([scheme for scheme in every if scheme.spare == "gate"])
        if not _small(found, trial.limit):
            found += try_all([scheme for scheme in every if scheme.spare == "limit"])
    files = {each.name: scratch / f"{each.name}.onnx" for each in found if each.min_cosine is not None}
    _time(found, files, trial)
    chosen = _choose(found, min_cosine, trial.limit)
    if graph_bytes(graph) < CALIBRATED_BELOW:
        chosen.overflow = overflow(onnx.load(str(files[chosen.name])), trial.calibration[::_SPREAD])
    save_graph(onnx.load(str(files[chosen.name])), out)  # not moved: a large graph names its data file inside
    shutil.rmtree(scratch)
    return found


@dataclasses.dataclass(frozen=True)
class _Tries:
    """Carries out schemes in one folder, each held to the same reference."""

    source: Path
    folder: Path
    trial: Trial
    reference: Sequence[Vectors]
    min_cosine: float

    def __call__(self, every: Sequence[Scheme]) -> list[Candidate]:
        found: list[Candidate] = []
        if not every:
            return found
        with bar("8-bit schemes", len(every)) as advance:
            for scheme in every:
                found.append(
                    measured(
                        scheme,
                        self.source,
                        self.folder / f"{scheme.name}.onnx",
                        self.trial,
                        self.reference,
                        self.min_cosine,
                    )
                )
                advance(text=scheme.name)
        return found


def _time(candidates: Sequence[Candidate], files: dict[str, Path], trial: Trial) -> None:
    """Fill in latency and throughput: the best of interleaved rounds, so that a busy machine is fair to all."""
    short, mixed_rows = [max(trial.rows, key=len)[:SHORT]], trial.rows[:TIMED]
    runs = {name: runner(path, trial) for name, path in files.items()}
    for run in runs.values():
        run(short)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            seconds[name].append((min(_seconds(run, short) for _ in range(10)), _seconds(run, mixed_rows)))
    for each in candidates:
        if each.name in seconds:
            one, mixed = (min(values) for values in zip(*seconds[each.name], strict=True))
            each.latency_ms, each.texts_per_second = 1e3 * one, len(mixed_rows) / mixed


def _seconds(run: Callable[..., Vectors], rows: Rows) -> float:
    start = time.perf_counter()
    run(rows)
    return time.perf_counter() - start


def _choose(candidates: Sequence[Candidate], min_cosine: float, limit: int | None) -> Candidate:
    ran = [each for each in candidates if each.min_cosine is not None]
    if not ran:
        raise ArtifactError(
            "no 8-bit scheme gave a graph that runs", "; ".join(f"{each.name}: {each.reason}" for each in candidates)
        )
    passed, small = [each for each in ran if each.passed], _small(ran, limit)
    chosen = (
        max(small, key=_speed)
        if small
        else min(passed, key=lambda each: each.bytes)
        if passed
        else max(ran, key=lambda each: each.min_cosine or 0.0)
    )
    chosen.chosen = True
    if not passed:
        warn(
            f"int8: no scheme reached min cosine {min_cosine}; wrote the closest, {chosen.name}"
            f" ({chosen.min_cosine:.4f}), marked as failed"
        )
    elif limit and not small:
        warn(
            f"int8: nothing that passes has at most {limit / 1e6:g} MB; wrote the smallest, {chosen.name}"
            f" ({chosen.bytes / 1e6:.1f} MB)"
        )
    for each in passed:
        each.reason = _verdict(each, bool(small), limit)
    return chosen


def _small(candidates: Sequence[Candidate], limit: int | None) -> list[Candidate]:
    """Those that pass, within the limit where there is one."""
    return [each for each in candidates if each.passed and not (limit and each.bytes > limit)]


def _verdict(each: Candidate, fits: bool, limit: int | None) -> str:
    if limit and each.bytes > limit:
        return f"more than {limit / 1e6:g} MB"
    return ("fastest that passes" if fits else "smallest that passes") if each.chosen else "slower"


def _speed(each: Candidate) -> float:
    return (each.texts_per_second or 0.0) / (each.latency_ms or np.inf)
