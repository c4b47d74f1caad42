"""What an export's manifest says before its files are listed."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from emb.artifact.manifest import LayerDimPair, Manifest
from emb.export.source import Source
from emb.files import sha256_file
from emb.model.embedding_model import EmbeddingModel

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "onnx", "onnxruntime")


def manifest_for(source: Source, model: EmbeddingModel, pair: LayerDimPair) -> Manifest:
    """The manifest of a slice before its files are listed: lineage, prompts, the scores of its pair."""
    known = source.manifest
    lineage: dict[str, Any] = (
        {key: value for key, value in known.lineage.items() if key != "quantization"} if known else {}
    )
    if "healing" in lineage:
        lineage["healing"] |= {"files": []}  # those it was measured on are not these
    if known is None:
        weights = source.folder / "model.safetensors"
        lineage["source"] = {"name": source.name, "fingerprint": sha256_file(weights) if weights.is_file() else None}
    lineage["export"] = {"versions": {name: version(name) for name in _LIBRARIES}}
    spec = model.spec
    return Manifest(
        "encoder" if known is None else "slice" if known.kind == "student" else known.kind,
        pair.layers,
        pair.dim,
        spec.pooling,
        spec.normalize,
        spec.max_length,
        dict(spec.prompts),
        [
            scores
            for scores in (known.pairs if known else [])
            if (scores["layers"], scores["dim"]) == (pair.layers, pair.dim)
        ],
        lineage=lineage,
        similarity=spec.similarity,
    )
