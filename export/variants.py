"""The ONNX files of an artifact: which differ, and their vectors as floats."""

from __future__ import annotations

from emb.manifest import Manifest, Variant
from emb.quantize.vectors import dequantize_int8, unpack_binary
from emb.similarity import Vectors


def distinct(manifest: Manifest) -> list[Variant]:
    """The variants, of several names for one file only the first."""
    first: dict[str, Variant] = {}
    for variant in manifest.variants:
        first.setdefault(manifest.files.get(variant.file, variant.file), variant)
    return list(first.values())


def same_file(manifest: Manifest, variant: Variant) -> list[str]:
    """Other names of this very file in the artifact."""
    digest = manifest.files.get(variant.file)
    return [other.file for other in manifest.variants if other is not variant and digest is not None and manifest.files.get(other.file) == digest]


def as_floats(vectors: Vectors, variant: Variant, manifest: Manifest) -> Vectors:
    """Vectors `(texts, dim)` float32 of what `variant` returns; of bits, -1 and 1."""
    if variant.vector_dtype == "int8":
        return dequantize_int8(vectors, manifest.calibration["ranges"])
    if variant.vector_dtype == "ubinary":
        return 2 * unpack_binary(vectors)[:, : manifest.dim].astype("float32") - 1
    return vectors
