"""Finding the teacher of an artifact on this machine."""

from __future__ import annotations

from pathlib import Path

from emb.artifact.manifest import Manifest
from emb.teachers.registry import Resolved, remembered, resolve


def teacher_source(
    folder: Path, manifest: Manifest, against: str | Path | None = None, *, trust_remote_code: bool = False
) -> tuple[Resolved | None, str]:
    """`against`, or the teacher that the artifact in `folder` names; or None, and why there is none.

    Raises:
        TeacherError: `against` cannot be found.
    """
    if against is not None:
        return resolve(against, trust_remote_code=trust_remote_code), ""
    named = manifest.lineage.teacher
    if named is None:
        return None, "the artifact names no teacher; give one with --against"
    for found in remembered(named, folder):
        return found, ""
    return None, f"{named.name} is not on this machine; give it with --against"
