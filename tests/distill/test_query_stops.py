"""Runs for documents that are stopped, edited or given something wrong on the way: nothing is mixed, nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from query_runs import distil
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES

import emb
from emb.distill import one_student, rotated_teacher
from emb.distill import run as room
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import load_model

pytestmark = pytest.mark.usefixtures("query_cache")


def test_stopped_behind_the_static_encoder_a_run_goes_on(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, trained = room.train_student, []

    def stopping(plan: Any, *rest: Any) -> Any:
        trained.append(plan.student.layers)
        if plan.student.layers and len(trained) == 2:
            raise KeyboardInterrupt
        return original(plan, *rest)

    monkeypatch.setattr(room, "train_student", stopping)
    with pytest.raises(KeyboardInterrupt):
        distil(place, tmp_path / "run")
    again = emb.distill(resume=True, out=tmp_path / "run")
    assert trained == [0, 4, 4], "the finished encoder was trained again, or the other not"
    assert [each.retention for each in again.scores] == [each.retention for each in run.scores]
    assert [each.layers for each in emb.distill(resume=True, out=tmp_path / "run").scores] == [
        each.layers for each in run.scores
    ]


def test_overwriting_leaves_nothing_of_the_run_before(run: Any, place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    found = distil(place, out, overwrite=True, rotate=False, overrides={"pairs": [[2, 16]]})
    assert {each.layers for each in found.scores} == {2, 4}
    assert not (out / "static").exists()
    assert not (out / "teacher").exists()
    assert found.teacher is None


def test_a_run_stopped_between_the_stages_ends_with_the_same_weights(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_stages = {"training.document_epochs": 1, "training.max_steps": 3}
    whole = distil(place, tmp_path / "whole", layers=0, overrides=two_stages)
    original, runs = one_student.Training.run, []

    def stopping(self: Any) -> None:
        runs.append(self)
        if len(runs) == 2:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(one_student.Training, "run", stopping)
        with pytest.raises(KeyboardInterrupt):
            distil(place, tmp_path / "run", layers=0, overrides=two_stages)
    again = emb.distill(resume=True, out=tmp_path / "run")
    first, second = (load_model(each.student).encoder.embedding.weight for each in (whole, again))
    assert torch.equal(first, second)


def _stopped(place: Path, out: Path, monkeypatch: pytest.MonkeyPatch, where: str, **more: Any) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, where, stop)
        with pytest.raises(KeyboardInterrupt):
            distil(place, out, **more)


def test_documents_edited_meanwhile_leave_the_rotation_as_it_was(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    own = Path(shutil.copytree(place, tmp_path / "place"))
    distil(own, tmp_path / "before", rotate=False)  # plain vectors are cached, to be moved
    _stopped(own, tmp_path / "run", monkeypatch, "train_student")
    lines = (own / "docs.jsonl").read_text().splitlines(keepends=True)
    (own / "docs.jsonl").write_text("".join(lines[:100]))
    found = emb.distill(resume=True, out=tmp_path / "run")
    vectors, turned = (SentenceTransformer(str(f)).encode(SENTENCES) for f in (found.student, found.run / "teacher"))
    assert (vectors * turned).sum(1).mean() > 0.9, "the student is in the space of another rotation"


@pytest.mark.parametrize("where", ["_begin", "rotated", "prepare"])
def test_stopped_on_the_way_to_the_rotated_teacher(
    where: str, run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped(place, tmp_path / "run", monkeypatch, where)
    begun = where != "_begin"
    again = emb.distill(resume=True, out=tmp_path / "run") if begun else distil(place, tmp_path / "run")
    assert [each.retention for each in again.scores] == [each.retention for each in run.scores]
    assert not (tmp_path / "run" / ".rotated").exists()


def test_a_pair_beyond_the_teacher_costs_no_finished_run(run: Any, place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    for pairs, more in (([[0, 9999]], {}), ([[4, 16]], {"layers": 2})):
        with pytest.raises(UsageError, match="is beyond"):
            distil(place, out, overwrite=True, overrides={"pairs": pairs}, **more)
        with pytest.raises(UsageError, match="is beyond"):
            distil(place, tmp_path / "new", overrides={"pairs": pairs}, **more)
    assert (out / "student" / "emb.json").is_file()
    assert not (tmp_path / "new").exists()


def test_a_teacher_inside_the_run_is_not_written_over(run: Any, place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    with pytest.raises(ArtifactError, match="the teacher lies in there"):
        emb.distill(str(out / "teacher"), documents=[place / "docs.jsonl"], out=out, overwrite=True)
    assert (out / "teacher" / "modules.json").is_file()


def test_a_run_goes_on_in_the_space_it_began_in(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped(place, tmp_path / "run", monkeypatch, "train_student")
    for more in ({"rotate": False}, {"teacher": str(run.teacher)}):
        with pytest.raises(UsageError, match="in this run, not"):
            emb.distill(resume=True, out=tmp_path / "run", **more)
    with pytest.raises(UsageError, match="a forecast comes before"):
        emb.distill(resume=True, out=tmp_path / "run", dry_run=True)


def test_a_rotation_that_fails_costs_no_finished_run(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ArtifactError("it gives other vectors")

    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    monkeypatch.setattr(rotated_teacher, "write_rotated", fail)
    for place_of_run in (out, tmp_path / "new"):
        with pytest.raises(ArtifactError, match="other vectors"):
            distil(place, place_of_run, overwrite=True)
    assert (out / "student" / "emb.json").is_file()
    assert not (out / ".rotated").exists()
    assert not (tmp_path / "new").exists()


def test_a_rotation_of_a_try_before_is_not_taken_for_the_run_s_own(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped(place, tmp_path / "run", monkeypatch, "_begin")
    assert (tmp_path / "run" / ".rotated").is_dir()
    _stopped(place, tmp_path / "run", monkeypatch, "train_student", rotate=False)
    assert not (tmp_path / "run" / ".rotated").exists()
    found = emb.distill(resume=True, out=tmp_path / "run")
    assert found.teacher is None
    vectors, plain = (SentenceTransformer(str(f)).encode(SENTENCES) for f in (found.student, place / "teacher"))
    assert (vectors * plain).sum(1).mean() > 0.9
