"""A run for documents when it is finished: scored with its static encoder, and moved to another place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from query_runs import distil
from retrieval_set import write_set
from tiny import SENTENCES

import emb
from emb.artifact.manifest import Manifest
from emb.artifact.runs import teacher_near
from emb.errors import UsageError
from emb.evaluate.evaluate import evaluate
from emb.teachers.lookup import teacher_source

pytestmark = pytest.mark.usefixtures("query_cache")


def test_every_exit_of_the_run_is_scored(run: Any, tmp_path: Path) -> None:
    data = [write_set(tmp_path / "tinyset", SENTENCES)]
    given: dict[str, Any] = {"teacher": run.run / "teacher", "dims": [16], "side": "asymmetric"}

    def scored(model: Path, layers: list[int]) -> list[tuple[str, int, str]]:
        found = evaluate([model], data, layers=layers, **given).scores
        return [(each.model, each.layers, each.side) for each in found if each.model != "teacher"]

    static, two, *rest = [("run", layers, "asymmetric") for layers in (0, 2, 1, 4)]
    assert set(scored(run.run, [])) == {static, two, *rest}
    assert scored(run.run, [0]) == [static] == scored(run.run / "static", [])
    assert scored(run.run, [0, 2]) == [static, two]
    assert scored(run.run / "student", [2]) == [("run", 2, "asymmetric")]
    with pytest.raises(UsageError, match="layers 3: run has no output there"):
        evaluate([run.run], data, layers=[0, 3], **given)


@pytest.fixture(scope="module")
def moved(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was made in one place and now lies in another, with an export of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMB_CACHE", str(place / "cache"))
        made = distil(place, tmp_path_factory.mktemp("first") / "mine")
        emb.export(made.run, layers=[0, 2], dims=[16], threads=1)
    return Path(shutil.move(made.run, tmp_path_factory.mktemp("second") / "theirs"))


@pytest.mark.parametrize("inside", ["student", "static/student", "exports/0x16", "exports/2x16"])
def test_a_run_that_was_moved_finds_its_teacher(inside: str, moved: Path) -> None:
    found, _ = teacher_source(moved / inside, Manifest.load(moved / inside))
    assert found is not None
    assert found.path == moved / "teacher"
    assert found.name == "teacher-rotated"


def test_a_run_that_was_moved_is_healed_and_validated(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    [folder] = emb.export(moved, layers=[2], dims=[32], out=tmp_path / "healed", int8=True, heal=0.3, threads=1)
    assert Manifest.load(folder).lineage.healing is not None
    report = emb.validate(moved / "exports" / "2x16", threads=1)
    assert report.teacher["name"] == "teacher-rotated"


def test_no_other_run_lends_its_teacher(moved: Path, tmp_path: Path, run: Any) -> None:
    assert teacher_near(tmp_path) is None
    assert teacher_near(moved) == moved / "teacher"
    alone = Path(shutil.copytree(moved / "student", tmp_path / "student"))
    found, reason = teacher_source(alone, Manifest.load(alone))
    assert found is None
    assert "teacher-rotated is not on this machine" in reason
