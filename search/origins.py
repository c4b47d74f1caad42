"""Whose vector space a model folder lives in: its own, and that of the model that it was made from."""

from __future__ import annotations

from pathlib import Path

from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import Lineage
from emb.artifact.manifest import Manifest, is_artifact
from emb.files import sha256_file

_WEIGHTS = "model.safetensors"


def own_hashes(folder: Path) -> set[str]:
    """What others record of this folder: the hash of all that loading reads, which students name, and that of the
    weights alone, which exports name.
    """
    weights = folder / _WEIGHTS
    return {weights_hash(folder)} | ({sha256_file(weights)} if weights.is_file() else set())


def sources(folder: Path) -> set[str]:
    """Hashes of the models whose vectors this folder's are: its teacher, or the model that was exported as it is.

    Empty where `emb.json` names none, or there is none.
    """
    lineage = Manifest.load(folder).lineage if is_artifact(folder) else Lineage()
    teacher, source = lineage.teacher, lineage.source
    named = (teacher.weights if teacher else None, source.fingerprint if source else None)
    return {each for each in named if each}
