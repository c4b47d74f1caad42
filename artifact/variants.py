"""The model files of an artifact: which differ."""

from __future__ import annotations

from emb.artifact.manifest import Manifest, Variant


def distinct(manifest: Manifest) -> list[Variant]:
    """The variants, of several names for one file only the first."""
    first: dict[str, Variant] = {}
    for variant in manifest.variants:
        first.setdefault(manifest.files.get(variant.file, variant.file), variant)
    return list(first.values())


def same_file(manifest: Manifest, variant: Variant) -> list[str]:
    """Other names of this very file in the artifact."""
    digest = manifest.files.get(variant.file)
    return [
        other.file
        for other in manifest.variants
        if other is not variant and digest is not None and manifest.files.get(other.file) == digest
    ]
