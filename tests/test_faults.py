"""Bad input through the command line: exit code 2, what is wrong and where, what mends it, no traceback."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilling import corpus_file, distil, finish, latest_step, limited, start, texts, weights
from safetensors.torch import load_file, save_file

from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.commands.console import run as run_command
from emb.data.corpus import Text
from emb.distill import one_student as room
from emb.errors import DiskError, TeacherError
from emb.teachers.capture import _check_finite

QUICK = ["--set", "capture.dtype=fp32", "--set", "training.precision=fp32", "--max-steps", "2", "--layers", "2"]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a cache and a corpus of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    corpus_file(tmp_path)
    return tmp_path


def _recipe(folder: Path, text: str) -> str:
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return "recipe.yaml"


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return path.name


def _arguments(case: str, teacher: str, folder: Path) -> list[str]:
    good = ["--teacher", teacher, "--data", "corpus.jsonl"]
    cases: dict[str, Any] = {
        "unknown teacher": lambda: ["--teacher", "qwen4-embedding", "--data", "corpus.jsonl"],
        "teacher folder without a model": lambda: ["--teacher", str(folder), "--data", "corpus.jsonl"],
        "missing file": lambda: ["--teacher", teacher, "--data", "nowhere.txt"],
        "missing column": lambda: [*good, "--field", "body"],
        "empty corpus": lambda: ["--teacher", teacher, "--data", _write(folder / "empty.txt", b"\n\n")],
        "one text": lambda: ["--teacher", teacher, "--data", _write(folder / "one.txt", b"just one\n")],
        "not utf-8": lambda: [
            "--teacher",
            teacher,
            "--data",
            _write(folder / "latin.txt", "café\n".encode("latin1") * 20),
        ],
        "layers beyond": lambda: [*good, "--layers", "9"],
        "shape": lambda: [*good, "--student", "fresh:2x33"],
        "pairs beyond in layers": lambda: [*good, "--set", "pairs=[[3, 16]]"],
        "pairs beyond in dim": lambda: [*good, "--set", "pairs=[[2, 999]]"],
        "unknown key": lambda: [*good, "--recipe", _recipe(folder, "training: {learning_rate: 1}")],
        "wrong type": lambda: [*good, "--recipe", _recipe(folder, "training: {lr: fast}")],
        "not yaml": lambda: [*good, "--recipe", _recipe(folder, "training: [1")],
        "unknown recipe": lambda: [*good, "--recipe", "smok"],
        "output exists": lambda: [*good, "--out", "."],
        "nothing to resume": lambda: ["--resume"],
    }
    return list(cases[case]())


@pytest.mark.parametrize(
    ("case", "said", "mend"),
    [
        ("unknown teacher", "qwen4-embedding: no such folder", "emb models"),
        ("teacher folder without a model", "a folder without modules.json and config.json, not a model", "config.json"),
        ("missing file", "nowhere.txt: no such file", "--data"),
        ("missing column", "corpus.jsonl:1: no field 'body'", "text, kind"),
        ("empty corpus", "empty.txt: 0 different texts", "--data"),
        ("one text", "one.txt: 1 different texts", "--data"),
        ("not utf-8", "latin.txt: not UTF-8 (byte 0xe9", "iconv"),
        ("layers beyond", "--layers 9: the student's source has 3 layers", "choose 1 to 3"),
        ("shape", "fresh:2x33", "fresh:6x384"),
        ("pairs beyond in layers", "[3, 16] is beyond the student's 2 layers", "pairs"),
        ("pairs beyond in dim", "or the teacher's 32 dims", "pairs"),
        ("unknown key", "recipe.yaml: training.learning_rate: ", "docs/recipes.md"),
        ("wrong type", "recipe.yaml: training.lr: ", "docs/recipes.md"),
        ("not yaml", "recipe.yaml: not valid YAML", ""),
        ("unknown recipe", "smok: no such recipe or file", "smoke"),
        ("output exists", "already exists", "--out"),
        ("nothing to resume", "runs/: no finished run", "emb distill"),
    ],
)
def test_bad_input_is_told(
    case: str, said: str, mend: str, bert_folder: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [] if case in ("layers beyond", "shape", "nothing to resume") else ["--layers", "2"]
    out = [] if case in ("output exists", "nothing to resume") else ["--out", "run"]
    code = run_command(
        cli, ["distill", *_arguments(case, str(bert_folder), workplace), *layers, *out, "--set", "capture.dtype=fp32"]
    )
    told = capsys.readouterr()
    assert code == 2, told.err
    assert said in told.err
    assert mend in told.err
    assert "Traceback" not in told.err
    assert told.out == ""
    assert not (workplace / "run").exists()


def test_long_line_and_duplicates_are_no_fault(
    bert_folder: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "odd.txt").write_text("\n".join([*texts(30), *texts(10), "word " * 200_000]), encoding="utf-8")
    code = run_command(cli, ["distill", "--teacher", str(bert_folder), "--data", "odd.txt", "--out", "run", *QUICK])
    told = capsys.readouterr().err
    assert code == 0, told
    assert "10 duplicate texts dropped" in told
    assert Manifest.load(workplace / "run" / "student").lineage.data.texts == 31


def test_teacher_whose_weights_are_broken(
    bert_folder: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = Path(shutil.copytree(bert_folder, workplace / "broken"))
    tensors = load_file(teacher / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layer.1.output.dense.bias"))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, teacher / "model.safetensors", metadata={"format": "pt"})
    code = run_command(cli, ["distill", "--teacher", "broken", "--data", "corpus.jsonl", "--out", "run", *QUICK])
    told = capsys.readouterr().err
    assert code == 2
    assert "layer.1.output.dense.bias holds NaN or infinity" in told
    assert not list((workplace / "cache").rglob("*.npy"))
    assert not (workplace / "run").exists()


def test_a_teacher_s_vector_that_is_not_finite_is_told_by_its_text() -> None:
    vectors = np.ones((3, 4), np.float16)
    vectors[1, 2] = np.inf
    with pytest.raises(TeacherError, match=r"NaN or infinity for: 'the second' \(text 4 of 4\)") as caught:
        _check_finite(vectors, [2, 3, 0], [Text("three"), Text("cached"), Text("one"), Text("the second")])
    assert "capture.dtype=fp32" in caught.value.hint


def test_errors_in_json(bert_folder: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command(cli, ["distill", "--teacher", str(bert_folder), "--data", "nowhere.txt", "--json"])
    assert code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "DataError"
    assert "nowhere.txt" in error["message"]
    assert "--data" in error["hint"]


@pytest.mark.parametrize(("size", "what"), [(1500, "cache"), (60_000, "checkpoints"), (200_000, "optimizer")])
def test_disk_full_while_writing(size: int, what: str, bert_folder: Path, workplace: Path) -> None:
    """No file may grow beyond `size` bytes: the kernel refuses the write in the middle."""
    report, run, data = workplace / "report", workplace / "run", workplace / "corpus.jsonl"
    more = {"training.max_steps": 6, "training.checkpoint_seconds": 0}
    assert finish(start(limited, size, report, distil, bert_folder, data, run, more=more)) == 0
    told = report.read_text(encoding="utf-8")
    assert told.startswith("DiskError: "), told
    assert "the disk is full" in told
    assert "run the same command again" in told
    assert not list(workplace.rglob("*.partial")), "something half-written was left"
    resume = run.exists()
    assert resume == (what != "cache")
    assert finish(start(distil, bert_folder, data, run, **({"resume": True} if resume else {"more": more}))) == 0
    assert finish(start(distil, bert_folder, data, workplace / "alone", more=more)) == 0
    assert weights(run) == weights(workplace / "alone")


def test_disk_full_while_saving_the_student(
    bert_folder: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run, data, more = workplace / "run", workplace / "corpus.jsonl", {"training.max_steps": 3}
    with monkeypatch.context() as patch:
        patch.setattr(room, "save_model", full)
        with pytest.raises(DiskError, match="student: the disk is full"):
            distil(bert_folder, data, run, more=more)
    assert not (run / "student").exists()
    assert latest_step(run) == 3, "finished training was lost"
    distil(bert_folder, data, run, resume=True)
    assert "resumed at step 3 of 3" in capsys.readouterr().err
    Manifest.load(run / "student").verify(run / "student")
    distil(bert_folder, data, workplace / "alone", more=more)
    assert weights(run) == weights(workplace / "alone")
