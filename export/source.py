"""What is exported: a run's students, an artifact, or any model folder; and where its exports go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emb.artifact.manifest import LayerDimPair, Manifest
from emb.artifact.runs import finished_static, run_status
from emb.errors import UsageError
from emb.export.given import given
from emb.model.embedding_model import manifest_of
from emb.teachers.registry import resolve


@dataclass(frozen=True)
class Source:
    """A model folder, what its manifest says, and where its exports go by default; of a run that made a static encoder
    too, that one's folder.
    """

    folder: Path
    name: str
    manifest: Manifest | None
    exports: Path
    static: Path | None = None

    def of(self, layers: int, verify: bool = True) -> Source:
        """The model that has `layers`: of a run with a static encoder, 0 are that one's."""
        if layers or self.static is None:
            return self
        return replace(self, folder=self.static, manifest=_manifest(self.static, verify), static=None)

    @property
    def trained(self) -> list[LayerDimPair]:
        """The pairs that were trained, a static encoder's among them."""
        found = [self.manifest, _manifest(self.static, verify=False) if self.static else None]
        return [each.pair for manifest in found if manifest for each in manifest.pairs]


def find_source(source: Path | None, verify: bool = True, *, trust_remote_code: bool = False) -> Source:
    """The model folder behind a run, an artifact, a model folder or a registered name.

    Raises:
        ArtifactError: nothing there, or an artifact changed by hand.
        UsageError: no run to take, or one without a student yet.
    """
    place = given(source)
    if not place.is_dir():
        place = resolve(str(place), trust_remote_code=trust_remote_code).path
    if run_status(place) is not None:
        folder, name, exports = place / "student", place.name, place / "exports"
        inside = finished_static(place)
        static = inside / "student" if inside else None
        if not folder.is_dir():
            raise UsageError(f"{place}: the run has no student yet", f"finish it: emb distill --resume --out {place}")
    else:
        folder, name, exports, static = place, (source or place).name, Path("exports"), None
    return Source(folder, name, _manifest(folder, verify), exports, static)


def by_model(source: Source, layers: Sequence[int], verify: bool = True) -> list[tuple[Source, list[int]]]:
    """The models that `layers` are exits of, with those of each, the static one first; none asked for means all of the
    student's.
    """
    found: dict[Path, tuple[Source, list[int]]] = {}
    for each in sorted(set(layers)):
        model = source.of(each, verify)
        found.setdefault(model.folder, (model, []))[1].append(each)
    return list(found.values()) or [(source, [])]


def _manifest(folder: Path, verify: bool) -> Manifest | None:
    manifest = manifest_of(folder)
    if manifest is not None and verify:
        manifest.verify(folder)
    return manifest


def place_for(source: Source, pair: LayerDimPair, out: Path | None, several: bool) -> Path:
    """The folder of one export; of several, each has its own below `out`."""
    if out is not None:
        return out / str(pair) if several else out
    return source.exports / (
        str(pair) if source.exports.name == "exports" and source.exports.parent != Path() else f"{source.name}-{pair}"
    )
