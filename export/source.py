"""What is exported: a run's student, an artifact, or any model folder; and where its exports go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emb.artifact.manifest import LayerDimPair, Manifest
from emb.artifact.runs import latest_run, run_status
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import manifest_of
from emb.teachers.registry import resolve, teachers


@dataclass(frozen=True)
class Source:
    """A model folder, what its manifest says, and where its exports go by default."""

    folder: Path
    name: str
    manifest: Manifest | None
    exports: Path


def find_source(source: Path | None, verify: bool = True, *, trust_remote_code: bool = False) -> Source:
    """The model folder behind a run, an artifact, a model folder or a registered name.

    Raises:
        ArtifactError: nothing there, or an artifact changed by hand.
        UsageError: no run to take, or one without a student yet.
    """
    place = latest_run() if source is None else source
    if str(place) in teachers() and not place.exists():
        place = resolve(str(place), trust_remote_code=trust_remote_code).path
    if not place.is_dir():
        raise ArtifactError(
            f"{place}: no such folder",
            "give a run, an artifact, a sentence-transformers folder, or a name of `emb models`",
        )
    if run_status(place) is not None:
        folder, name, exports = place / "student", place.name, place / "exports"
        if not folder.is_dir():
            raise UsageError(f"{place}: the run has no student yet", f"finish it: emb distill --resume --out {place}")
    else:
        folder, name, exports = place, (source or place).name, Path("exports")
    manifest = manifest_of(folder)
    if manifest is not None and verify:
        manifest.verify(folder)
    return Source(folder, name, manifest, exports)


def place_for(source: Source, pair: LayerDimPair, out: Path | None, several: bool) -> Path:
    """The folder of one export; of several, each has its own below `out`."""
    if out is not None:
        return out / str(pair) if several else out
    return source.exports / (
        str(pair) if source.exports.name == "exports" and source.exports.parent != Path() else f"{source.name}-{pair}"
    )
