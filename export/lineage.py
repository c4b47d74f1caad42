"""What an export's manifest says before its files are listed."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import ExportRecord, Lineage, SourceRecord
from emb.artifact.manifest import Kind, LayerDimPair, Manifest
from emb.export.source import Source
from emb.files import sha256_file
from emb.model.embedding_model import EmbeddingModel

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "onnx", "onnxruntime")


def manifest_for(source: Source, model: EmbeddingModel, pair: LayerDimPair) -> Manifest:
    """The manifest of a slice before its files are listed: lineage, prompts, the scores of its pair."""
    known = source.manifest
    spec = model.spec
    return Manifest(
        Kind.ENCODER if known is None else Kind.SLICE if known.kind == Kind.STUDENT else known.kind,
        pair.layers,
        pair.dim,
        spec.pooling,
        spec.normalize,
        spec.max_length,
        dict(spec.prompts),
        [scores for scores in (known.pairs if known else []) if scores.pair == pair],
        lineage=_lineage(source),
        similarity=spec.similarity,
    )


def _lineage(source: Source) -> Lineage:
    """The source's own, without what was measured on its files, which are not these."""
    export = ExportRecord({name: version(name) for name in _LIBRARIES})
    if source.manifest is None:
        weights = source.folder / "model.safetensors"
        return Lineage(
            source=SourceRecord(
                source.name, sha256_file(weights) if weights.is_file() else None, weights_hash(source.folder)
            ),
            export=export,
        )
    known = source.manifest.lineage
    healing = replace(known.healing, files=[]) if known.healing else None
    return replace(known, export=export, quantization=None, healing=healing)
