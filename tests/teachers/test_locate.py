"""A model by run, path or name: one place finds it for every command that takes one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emb.artifact.runs import write_status
from emb.errors import EmbError, TeacherError, UsageError
from emb.evaluate.subjects import open_subject
from emb.search.bundling import bundle
from emb.teachers.locate import locate
from emb.vocabulary.adaptation import adapt_vocab


@pytest.fixture
def run(student_folder: Path, tmp_path: Path) -> Path:
    """A run with a student, and in it the run of a static encoder."""
    for place in (tmp_path / "runs" / "english", tmp_path / "runs" / "english" / "static"):
        shutil.copytree(student_folder, place / "student")
        write_status(place, "finished")
    return tmp_path / "runs" / "english"


def test_a_run_stands_for_its_student_and_gives_it_its_name(run: Path) -> None:
    assert locate(run) == ("english", run / "student")
    assert locate(run / "static") == ("english", run / "static" / "student")
    assert locate(run / "student") == ("english", run / "student"), "its last part says nothing"


def test_a_folder_has_its_own_name(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(str(bert_folder)) == ("tiny-bert", bert_folder)
    alone = shutil.copytree(bert_folder, tmp_path / "static")
    write_status(alone, "finished")
    shutil.copytree(bert_folder, alone / "student")
    assert locate(alone)[0] == "static", "it lies in no run"
    monkeypatch.setenv("EMB_MODELS", str(bert_folder.parent))
    assert locate("tiny-bert/tiny-bert") == ("tiny-bert/tiny-bert", bert_folder)


def test_every_command_says_the_same_of_a_run_without_a_student(run: Path, bert_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "student")
    commands: dict[str, Callable[[Any], object]] = {
        "evaluate": lambda model: open_subject(model, (), "fp32", (), 1),
        "bundle": lambda model: bundle(model, bert_folder, out=tmp_path / "bundle"),
        "adapt": lambda model: adapt_vocab(model, data=["none.txt"], out=tmp_path / "adapted"),
    }
    for command in commands.values():
        with pytest.raises(UsageError, match=r"english: the run has no student yet\n.*emb distill --resume --out"):
            command(run)
        with pytest.raises(TeacherError, match="all-mpnet-base-v2"):
            command("all-mpnet-base-v3")


def test_an_export_is_not_adapted(run: Path, tmp_path: Path) -> None:
    from emb.export import export

    [exported] = export(run, layers=[1], dims=[16])
    with pytest.raises(EmbError, match="is an export, whose files have the vocabulary inside"):
        adapt_vocab(exported, data=["none.txt"], out=tmp_path / "adapted")
    assert locate(exported) == ("1x16", exported)
