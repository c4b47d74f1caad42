"""What each exported file costs and gives: bytes, time, and the teacher's neighbours that its vectors find."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from emb.artifact.manifest import Manifest, Variant
from emb.artifact.variants import distinct
from emb.data.probes import Sample
from emb.export.options import Options
from emb.progress import bar
from emb.quantize.weights.surgery import graph_bytes
from emb.runtime.encoder import ArtifactEncoder
from emb.similarity import Vectors, neighbours_found, truncated
from emb.validate.parity import by_kind

ROUNDS = 3
_TIMED = 128  # texts whose throughput is measured
_SHORT = 24  # texts, the shortest, whose latency is measured one at a time


@dataclass
class MeasuredFile:
    """One file of the grid.

    Attributes:
        bytes: on disk, its data file included.
        latency_ms: median of one short text, tokenisation included; the best of interleaved rounds.
        texts_per_second: texts of mixed lengths at once, likewise.
        quality: mean share, 0 to 1, of a text's ten nearest neighbours in the reference's own vectors that this
            file's vector finds among the reference's vectors cut to `dim`.
        min_cosine: to the fp32 slice, as the export found it; None for fp32 itself.
        state: "front", "dominated" or "failed"; `reason` says by what, or why.
    """

    layers: int
    dim: int
    weight_dtype: str
    folder: Path
    file: str
    command: str
    bytes: int
    passed: bool
    min_cosine: float | None = None
    quantizer: str | None = None
    latency_ms: float = 0.0
    texts_per_second: float = 0.0
    quality: float = 0.0
    state: str = "front"
    reason: str = ""

    @property
    def name(self) -> str:
        """As tables and pictures call it."""
        return f"{self.layers}x{self.dim} {self.weight_dtype}"


@dataclass(frozen=True)
class Reference:
    """Whose neighbours count: a name, the texts, and its vectors `(texts, dim)` of them in full."""

    name: str
    samples: Sequence[Sample]
    vectors: Vectors = field(repr=False)


def points_of(folders: Sequence[Path], source: str, options: Options) -> list[MeasuredFile]:
    """The float-vector files of `folders` exported with `options`, not yet measured; `source` is what their commands
    name.
    """
    found = []
    for folder in folders:
        manifest = Manifest.load(folder)
        found += [
            _point(folder, manifest, variant, source, options)
            for variant in distinct(manifest)
            if variant.vector_dtype == "float32" and variant.exporter == "emb"
        ]
    return found


def _point(folder: Path, manifest: Manifest, variant: Variant, source: str, options: Options) -> MeasuredFile:
    size = graph_bytes(folder / variant.file)
    command = (
        f"emb export {source} --layers {manifest.layers} --dim {manifest.dim}{options.flags(variant.weight_dtype)}"
    )
    return MeasuredFile(
        manifest.layers,
        manifest.dim,
        variant.weight_dtype,
        folder,
        variant.file,
        command,
        size,
        variant.passed is not False,
        variant.min_cosine,
        variant.quantizer,
    )


def measure(points: Sequence[MeasuredFile], reference: Reference, threads: int | None = None) -> None:
    """Fill in quality and, as the best of interleaved rounds, the times: a busy machine is fair to all.

    Files are opened one at a time, so that memory does not grow with the grid.
    """
    seconds: dict[int, list[tuple[float, float]]] = {index: [] for index in range(len(points))}
    with bar("files", ROUNDS * len(points)) as advance:
        for number in range(ROUNDS):
            for index, point in enumerate(points):
                # Just written; hashed once is enough.
                encoder = ArtifactEncoder(point.folder, point.file, threads, verify=False)
                if number == 0:
                    point.quality = _quality(encoder, point, reference)
                seconds[index].append(_times(encoder, reference.samples))
                advance(text=point.name)
    for index, point in enumerate(points):
        one, mixed = (min(values) for values in zip(*seconds[index], strict=True))
        point.latency_ms, point.texts_per_second = 1000 * one, min(_TIMED, len(reference.samples)) / mixed


def _quality(encoder: ArtifactEncoder, point: MeasuredFile, reference: Reference) -> float:
    vectors = by_kind(reference.samples, lambda texts, kind: encoder.encode(texts, kind=kind))
    return neighbours_found(reference.vectors, vectors, truncated(reference.vectors, point.dim))


def _times(encoder: ArtifactEncoder, samples: Sequence[Sample]) -> tuple[float, float]:
    """Seconds of one short text (median), and of texts of mixed lengths at once."""
    texts = [sample.text for sample in samples]
    short = sorted(texts, key=len)[:_SHORT]
    encoder.encode(texts[:8])  # what is paid once: memory, the session for batches side by side
    return median(_seconds(encoder.encode, [text]) for text in short), _seconds(encoder.encode, texts[:_TIMED])


def _seconds(encode: Callable[..., Any], texts: Sequence[str]) -> float:
    start = time.perf_counter()
    encode(texts)
    return time.perf_counter() - start


def reference_of(name: str, samples: Sequence[Sample], encoder: Any) -> Reference:
    """`encoder`'s vectors of the samples, each behind the prompt of its kind."""
    return Reference(name, samples, np.asarray(by_kind(samples, lambda texts, kind: encoder.encode(texts, kind=kind))))
