"""What healing gained: each file held against the teacher on held-out texts, beside the file that the unhealed slice
gives.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emb.artifact.lineage import HealedFile
from emb.artifact.manifest import Manifest, Variant
from emb.artifact.variants import distinct
from emb.distill.train import Split
from emb.export.graph import write_graph
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.quantize.weights import int4
from emb.quantize.weights.candidate import write_scheme
from emb.quantize.weights.fusing import fuse
from emb.quantize.weights.judge import Trial, if_same, run_file
from emb.quantize.weights.schemes import schemes
from emb.similarity import Vectors, cosines, neighbour_overlap, truncated


def measure_gains(
    unhealed: EmbeddingModel, folder: Path, manifest: Manifest, held_out: Split, trial: Trial
) -> list[HealedFile]:
    """Figures of every healed file in `folder`, and of its like made from `unhealed` by the same scheme.

    `before` and `after` have the mean `cosine` to the teacher, the `overlap` of each text's ten neighbours among the
    held-out texts with those the teacher finds, and the same for searches among the teacher's own vectors
    (`asymmetric`). Of binary vectors the neighbours are those of Hamming distance.
    """
    goal, found = truncated(held_out.targets.take(range(len(held_out.targets))), manifest.dim), []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unhealed-") as scratch:
        for variant, path in _unhealed(unhealed, Path(scratch), manifest, trial):
            note(f"{variant.file}: before and after healing, on {len(goal):,} held-out texts")
            before, after = (run_file(file, trial, held_out.rows) for file in (path, folder / variant.file))
            found.append(_healed_file(variant.weight_dtype, "float32", before, after, goal))
            if any(
                each.vector_dtype == "ubinary" and each.quantizer == variant.quantizer for each in manifest.variants
            ):
                found.append(_healed_file(variant.weight_dtype, "ubinary", _bits(before), _bits(after), goal))
    return found


def _unhealed(model: EmbeddingModel, folder: Path, manifest: Manifest, trial: Trial) -> Iterator[tuple[Variant, Path]]:
    """Each fp32 or quantised variant that returns floats, with the file that `model` gives for it."""
    graph = write_graph(model, folder / "model.onnx")
    fused = if_same(
        graph, fuse(graph, folder / "fused.onnx", int(model.encoder.config.num_attention_heads), model.hidden), trial
    )
    by_name = {scheme.name: scheme for scheme in (*schemes(graph, trial.largest, trial.limit), int4.SCHEME)}
    for variant in (each for each in distinct(manifest) if each.vector_dtype == "float32" and each.exporter == "emb"):
        if variant.weight_dtype == "fp32":
            yield variant, graph
        elif variant.quantizer in by_name:  # how fp16 is stored is no scheme
            yield (
                variant,
                write_scheme(
                    by_name[variant.quantizer], fused, folder / f"{variant.weight_dtype}.onnx", trial.calibration
                ),
            )


def _healed_file(weights: str, vectors: str, before: Vectors, after: Vectors, goal: Vectors) -> HealedFile:
    return HealedFile(weights, vectors, _figures(before, goal), _figures(after, goal))


def _figures(vectors: Vectors, goal: Vectors) -> dict[str, float]:
    return {
        "cosine": float(cosines(vectors, goal).mean()),
        "overlap": neighbour_overlap(vectors, goal),
        "asymmetric": neighbour_overlap(vectors, goal, index=goal),
    }


def _bits(vectors: Vectors) -> Vectors:
    return np.where(vectors > 0, np.float32(1), np.float32(-1))
