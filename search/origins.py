"""Whose vector space a model folder lives in: its own, and that of the model that it was made from."""

from __future__ import annotations

from pathlib import Path

from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import Lineage
from emb.artifact.manifest import Manifest, is_artifact


def origins(folder: Path) -> set[str]:
    """Hashes of the models whose vectors a folder's are: its own, its teacher's, that of the model exported as it is.

    They cover all that loading reads: a rotated model may share the file of its weights with the plain one.
    """
    return {weights_hash(folder)} | sources(folder)


def sources(folder: Path) -> set[str]:
    """The same without its own; empty where `emb.json` names none, or there is none."""
    lineage = Manifest.load(folder).lineage if is_artifact(folder) else Lineage()
    return {each.weights for each in (lineage.teacher, lineage.source) if each and each.weights}
