"""What a command says to type next is a command that `emb` takes as it stands."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emb.artifact import manifest
from emb.artifact.lineage import Lineage, TeacherRecord
from emb.cli import SECTIONS, cli
from emb.commands import console
from emb.commands.next_step import next_step
from emb.commands.shared import flat
from emb.files import write_json
from emb.teachers.registry import Resolved

# The package names the commands, not their files.
bundle, validate = import_module("emb.commands.bundle"), import_module("emb.commands.validate")
COMMANDS = Path(__file__).resolve().parents[2] / "commands"


def _words(text: str) -> list[str]:
    """The words behind `next: emb`, as a shell reads them."""
    return shlex.split(text.split("next: emb ")[1].splitlines()[0])


def test_words_with_blanks_come_back_as_one() -> None:
    assert _words(next_step("search", "a question", "--index", Path("my docs.index"))) == [
        *("search", "a question", "--index", "my docs.index")
    ]


def test_no_command_writes_that_line_by_hand() -> None:
    """By hand nothing is quoted, and a comma or an "or" gets in that no shell knows."""
    written = [path.name for path in COMMANDS.glob("*.py") if re.search(r"next: emb", path.read_text("utf-8"))]
    assert not written


def test_an_index_says_how_it_is_searched(
    student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents, index = tmp_path / "my documents.txt", tmp_path / "my index"
    documents.write_text("the cat sat\na dog ran\nthe sun shone\n", encoding="utf-8")
    assert console.run(cli, ["index", str(documents), "--doc", str(student_folder), "--out", str(index)]) == 0
    assert console.run(cli, _words(capsys.readouterr().out)) == 0
    assert "passage" in capsys.readouterr().out


def _lineage(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """Let every folder be an artifact of this lineage."""
    monkeypatch.setattr(manifest, "is_artifact", lambda folder: True)
    monkeypatch.setattr(manifest.Manifest, "load", lambda folder: SimpleNamespace(lineage=Lineage(**facts)))


def test_a_student_joins_its_teacher_and_another_encoder_reads_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tmp_path / "mine" / "exports" / "0x128"
    export.mkdir(parents=True)
    write_json(tmp_path / "mine" / "run.json", {"status": "finished", "at": ""})
    _lineage(monkeypatch, teacher=TeacherRecord("teacher"))
    assert _words(validate._after(export)) == ["bundle", "--query", str(export), "--out", "bundles/mine"]
    _lineage(monkeypatch)
    assert _words(validate._after(export)) == ["index", "DOCS", "--doc", str(export), "--out", "mine.index"]


def test_a_bundle_names_the_documents_that_its_student_was_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = tmp_path / "documents.jsonl"
    _lineage(monkeypatch, recipe={"data": {"documents": [str(documents)]}})
    assert bundle._documents("export") == ["DOCS"], "they are gone"
    documents.touch()
    assert bundle._documents("export") == [str(documents)]
    _lineage(monkeypatch)
    assert bundle._documents("export") == ["DOCS"]


def test_examples_in_the_help_are_taken_as_they_are_pasted() -> None:
    helps = [command.help or "" for command in [cli, *cli.commands.values()]]
    lines = [line.strip() for text in helps for line in text.splitlines() if line.strip().startswith("emb ")]
    assert len(lines) >= 9
    for name, *words in (shlex.split(line)[1:] for line in lines):
        cli.commands[name].make_context(name, words)
    [query] = [line.split()[3] for line in lines if line.startswith("emb bundle")]
    teacher = Resolved(Path(), "all-MiniLM-L6-v2", None, None)
    assert query == f"runs/{import_module('emb.distill.run')._stem(teacher)}/exports/0x128"


def test_help_lists_every_command_once_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(cli.commands)
    assert console.run(cli, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", printed, re.MULTILINE) for name in cli.commands)
    assert not re.search(r"\w\.\.\.$", printed, re.MULTILINE)


@pytest.mark.parametrize("name", ["export", "evaluate"])
def test_several_dims_are_asked_for_in_either_spelling(name: str) -> None:
    for option in ("--dim", "--dims"):
        context = cli.commands[name].make_context(name, [option, "128,256", "model"])
        assert flat(context.params["dims"]) == (128, 256)
