"""`emb.json`: typed, read in every schema there was, and refused by name where it is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emb.artifact.lineage import Candidate, HealedFile
from emb.artifact.manifest import FILE, SCHEMA, Kind, LayerDimPair, Manifest, PairScores, no_artifact
from emb.errors import ArtifactError

KEPT = sorted((Path(__file__).parent / "kept").glob("*.json"))


@pytest.fixture(params=KEPT, ids=lambda path: path.stem)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with the `emb.json` of an artifact that an earlier version exported."""
    (tmp_path / FILE).write_bytes(request.param.read_bytes())
    return tmp_path


def _changed(folder: Path, change: dict[str, Any]) -> None:
    value = json.loads((folder / FILE).read_text(encoding="utf-8"))
    (folder / FILE).write_text(json.dumps(value | change), encoding="utf-8")


def test_every_schema_has_one_kept() -> None:
    assert {json.loads(path.read_text(encoding="utf-8"))["schema"] for path in KEPT} == set(range(1, SCHEMA + 1))


def test_what_earlier_versions_wrote_is_read_typed(kept: Path) -> None:
    written = json.loads((kept / FILE).read_text(encoding="utf-8"))
    manifest = Manifest.load(kept)
    assert manifest.kind is Kind.SLICE
    assert manifest.pairs == [PairScores(**each) for each in written["pairs"]]
    assert manifest.pairs[0].pair == LayerDimPair(manifest.layers, manifest.dim)
    lineage, before = manifest.lineage, written["lineage"]
    assert lineage.teacher is not None
    assert lineage.teacher.name == before["teacher"]["name"]
    assert lineage.teacher.fingerprint == before["teacher"]["fingerprint"]
    assert lineage.export.versions == before["export"]["versions"]
    assert lineage.quantization is not None
    assert lineage.quantization.candidates == [Candidate(**each) for each in before["quantization"]["candidates"]]
    assert lineage.recipe == before.get("recipe")
    assert (lineage.data is None) == ("data" not in before)
    files = lineage.healing.files if lineage.healing else []
    assert files == [HealedFile(**each) for each in (before.get("healing") or {}).get("files", [])]


def test_what_earlier_versions_wrote_is_verified_as_it_is(kept: Path) -> None:
    Manifest.load(kept).verify(kept, files=[])
    sealed = bool(Manifest.load(kept).digest)
    _changed(kept, {"max_length": 3})
    if sealed:
        with pytest.raises(ArtifactError, match=r"changed since it was written: emb\.json"):
            Manifest.load(kept).verify(kept, files=[])


def test_it_is_written_again_in_today_s_schema(kept: Path) -> None:
    before = Manifest.load(kept)
    before.write(kept)
    again = Manifest.load(kept)
    assert json.loads((kept / FILE).read_text(encoding="utf-8"))["schema"] == SCHEMA
    assert again == before
    again.verify(kept, files=[])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": SCHEMA + 1}, rf"schema {SCHEMA + 1}, this version reads {SCHEMA}"),
        ({"schema": None}, "schema None"),
        ({"kind": "bundle"}, "'bundle' is not a valid Kind"),
        ({"surprise": 1}, "'surprise'"),
        ({"lineage": {"surprise": 1}}, "'surprise'"),
        ({"lineage": {"teacher": {"name": "a", "surprise": 1}}}, "'surprise'"),
        ({"lineage": {"teacher": {"path": "a"}}}, "'name'"),
        ({"lineage": {"teacher": "a"}}, "mapping"),
        ({"lineage": 3}, r"emb\.json"),
        ({"pairs": [{"layers": 1}]}, "'dim'"),
        ({"variants": 3}, r"emb\.json"),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(kept: Path, change: dict[str, Any], told: str) -> None:
    _changed(kept, change)
    with pytest.raises(ArtifactError, match=told) as caught:
        Manifest.load(kept)
    assert str(kept / FILE) in caught.value.message


def test_what_is_no_artifact_is_told_by_what_it_is(tmp_path: Path) -> None:
    assert no_artifact(tmp_path / "nothing").message == f"{tmp_path / 'nothing'}: no such folder"
    assert no_artifact(tmp_path).hint == f"run: emb export {tmp_path}"
    (tmp_path / "bundle.json").write_text("{}", encoding="utf-8")
    assert f"{tmp_path}: a bundle, not an artifact" in no_artifact(tmp_path).message
    assert "emb export" not in no_artifact(tmp_path).hint
