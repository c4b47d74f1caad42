"""The files with 8- and 4-bit weights."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from emb.artifact.lineage import Candidate, QuantizationRecord
from emb.artifact.manifest import Manifest, Variant
from emb.export.external_data import second_name
from emb.export.graph import GRAPH
from emb.export.options import Options
from emb.machine import has_vnni, processor
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note, warn
from emb.quantize.weights import int4
from emb.quantize.weights.candidate import try_scheme
from emb.quantize.weights.fusing import fuse
from emb.quantize.weights.judge import Trial
from emb.quantize.weights.select import select_int8

WEB = "onnx/model_quantized.onnx"  # the name transformers.js opens


def write_small(manifest: Manifest, model: EmbeddingModel, folder: Path, options: Options, trial: Trial) -> None:
    """Write the 8- and 4-bit files asked for, from the fp32 graph in `folder`, and list them in `manifest`."""
    scratch = folder / "onnx" / ".fused.onnx"
    fused = fuse(folder / GRAPH, scratch, int(model.encoder.config.num_attention_heads), model.hidden)
    if options.int8:
        _write_int8(manifest, folder, fused, options, trial)
    if options.int4:
        _write_int4(manifest, folder, fused, trial)
    for left in scratch.parent.glob(f"{scratch.name}*"):
        left.unlink()


def _write_int8(manifest: Manifest, folder: Path, fused: Path, options: Options, trial: Trial) -> None:
    file = int8_file(options.reduce_range)
    candidates = select_int8(folder / GRAPH, fused, folder / file, trial, options.min_cosine, options.scheme)
    chosen = next(each for each in candidates if each.chosen)
    second_name(folder / file, folder / WEB)
    manifest.variants += [
        Variant(name, "int8", quantizer=chosen.name, passed=chosen.passed, min_cosine=chosen.min_cosine)
        for name in (file, WEB)
    ]
    manifest.lineage.quantization = QuantizationRecord(
        chosen.name, options.min_cosine, options.threads, candidates, processor(), options.reduce_range
    )
    _tell(candidates)


def _write_int4(manifest: Manifest, folder: Path, fused: Path, trial: Trial) -> None:
    found = try_scheme(int4.SCHEME, folder / GRAPH, fused, folder / int4.FILE, trial, int4.MIN_COSINE)
    manifest.variants.append(
        Variant(int4.FILE, "int4", quantizer=found.name, passed=found.passed, min_cosine=found.min_cosine)
    )
    if not found.passed:
        warn(f"{int4.FILE}: {found.reason}; written all the same, marked as failed")


def int8_file(reduce_range: bool = False) -> str:
    """The name people expect for 8-bit weights made for this machine's processor, or for any that has AVX2."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "onnx/model_qint8_arm64.onnx"
    return "onnx/model_qint8_avx512_vnni.onnx" if has_vnni() and not reduce_range else "onnx/model_quint8_avx2.onnx"


def _tell(candidates: Sequence[Candidate]) -> None:
    for each in candidates:
        if each.min_cosine is not None:
            mark = "→" if each.chosen else " "
            speed = f"{each.latency_ms:7.2f} ms {each.texts_per_second:8.0f} texts/s"
            note(
                f"{mark} {each.name:21} {each.bytes / 1e6:7.1f} MB  cosine {each.mean_cosine:.4f} min"
                f" {each.min_cosine:.4f} {speed}  {each.reason}"
            )
    share = next((each.overflow for each in candidates if each.overflow), 0.0)
    if share:
        note(
            f"on a processor without VNNI {1e6 * share:,.0f} of a million sums would not fit into 16 bits; for those"
            " export with --reduce-range"
        )
