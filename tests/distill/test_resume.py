"""A run killed at any moment and resumed ends with the weights, byte for byte, of one left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distilling import STEPS, corpus_file, distil, finish, kill_when, latest_step, log, start, wait_for, weights

from emb.artifact.runs import run_status
from emb.distill.checkpoint import save_checkpoint
from emb.errors import ArtifactError, CheckpointError

OFTEN = {"training.checkpoint_seconds": 0}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus; all runs below it share one cache."""
    folder = tmp_path_factory.mktemp("resume")
    corpus_file(folder)
    return folder


def _start(teacher: Path, workplace: Path, name: str, **options: Any) -> Any:
    return start(distil, teacher, workplace / "corpus.jsonl", workplace / name, **options)


@pytest.fixture(scope="module")
def alone(bert_folder: Path, workplace: Path) -> Path:
    """A run that nothing happened to."""
    assert finish(_start(bert_folder, workplace, "alone")) == 0
    return workplace / "alone"


@pytest.fixture(scope="module")
def killed(bert_folder: Path, workplace: Path, alone: Path) -> Path:
    """A run killed past its twentieth step, with two checkpoints."""
    kill_when(_start(bert_folder, workplace, "killed", more=OFTEN), lambda: latest_step(workplace / "killed") >= 22)
    return workplace / "killed"


@pytest.fixture
def run(killed: Path, workplace: Path, tmp_path: Path) -> Path:
    """A copy of the killed run, to be treated badly."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def _resume(teacher: Path, workplace: Path, run: Path, **options: Any) -> Any:
    return distil(teacher, workplace / "corpus.jsonl", run, cache=workplace / "cache", resume=True, **options)


def _same_log(one: Path, other: Path) -> bool:
    records = [
        [{key: value for key, value in record.items() if key != "seconds"} for record in log(run)]
        for run in (one, other)
    ]
    return records[0] == records[1]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_step(seed: int, bert_folder: Path, workplace: Path, alone: Path) -> None:
    name = f"random-{seed}"
    step = random.Random(seed).randint(1, STEPS - 5)
    kill_when(_start(bert_folder, workplace, name, more=OFTEN), lambda: latest_step(workplace / name) >= step)
    assert run_status(workplace / name) == "running"
    assert finish(_start(bert_folder, workplace, name, resume=True)) == 0
    assert weights(workplace / name) == weights(alone)
    assert {"model.safetensors", "exits.safetensors", "2_Dense/model.safetensors"} <= set(weights(alone))
    assert _same_log(workplace / name, alone)


def test_killed_before_the_first_checkpoint(bert_folder: Path, workplace: Path, alone: Path) -> None:
    kill_when(_start(bert_folder, workplace, "early"), lambda: (workplace / "early" / "log.jsonl").is_file())
    assert latest_step(workplace / "early") == 0
    _resume(bert_folder, workplace, workplace / "early")
    assert weights(workplace / "early") == weights(alone)
    assert _same_log(workplace / "early", alone)


def test_killed_while_the_first_checkpoint_was_written(
    bert_folder: Path, workplace: Path, alone: Path, run: Path
) -> None:
    first, *others = sorted((run / "checkpoints").iterdir())
    first.rename(run / "checkpoints" / ".step-00000001.abcdef01.partial")
    for other in others:
        shutil.rmtree(other)
    _resume(bert_folder, workplace, run, more=OFTEN)
    assert weights(run) == weights(alone)
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        f"step-{step:08d}" for step in (STEPS - 1, STEPS)
    ]


def test_log_goes_on_where_the_checkpoint_is(bert_folder: Path, workplace: Path, alone: Path, run: Path) -> None:
    step = latest_step(run)
    with (run / "log.jsonl").open("a", encoding="utf-8") as handle:
        # Written after the checkpoint, and cut short.
        handle.write(json.dumps({"step": step + 5, "loss": 1.0}) + '\n{"step": 3, "lo')
    _resume(bert_folder, workplace, run)
    assert _same_log(run, alone)
    steps = [(record["step"], "loss" in record) for record in log(run)]
    assert len(steps) == len(set(steps))
    assert weights(run) == weights(alone)


def test_finished_run_is_left_as_it_is(bert_folder: Path, workplace: Path, alone: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(alone.rglob("*")) if path.is_file()}
    result = _resume(bert_folder, workplace, alone)
    assert {path: path.stat().st_mtime_ns for path in sorted(alone.rglob("*")) if path.is_file()} == before
    assert result.student == alone / "student"
    assert [(score.layers, score.dim) for score in result.scores] == [(1, 16), (2, 32)]


def test_killed_between_the_last_step_and_the_end(
    bert_folder: Path, workplace: Path, alone: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(alone, tmp_path / "run"))
    assert latest_step(run) == STEPS
    shutil.rmtree(run / "student")
    status = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**status, "status": "running"}), encoding="utf-8")
    _resume(bert_folder, workplace, run)
    assert weights(run) == weights(alone)
    assert _same_log(run, alone)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_writes_a_checkpoint(
    number: signal.Signals, bert_folder: Path, workplace: Path, alone: Path
) -> None:
    run = workplace / f"interrupted-{number}"
    process = _start(bert_folder, workplace, run.name)
    wait_for(process, lambda: (run / "log.jsonl").is_file() and (run / "log.jsonl").stat().st_size > 0)
    os.kill(process.pid, number)
    assert finish(process) not in (0, -number), "it was not caught"
    assert 1 <= latest_step(run) < STEPS
    _resume(bert_folder, workplace, run)
    assert weights(run) == weights(alone)
    assert _same_log(run, alone)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _another_total(path: Path) -> None:
    path.write_text(
        path.read_text(encoding="utf-8").replace(f'"total": {STEPS}', f'"total": {STEPS - 1}'), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", _flip),
        ("optimizer.safetensors", _cut),
        ("state.json", _cut),
        ("state.json", _another_total),
        ("model.safetensors", Path.unlink),
    ],
)
def test_damaged_checkpoint_is_passed_over(
    file: str,
    damage: Callable[[Path], None],
    bert_folder: Path,
    workplace: Path,
    alone: Path,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    *_, before, newest = sorted((run / "checkpoints").glob("step-*"))
    damage(newest / file)
    _resume(bert_folder, workplace, run)
    said = capsys.readouterr().err
    assert f"{newest} is damaged ({file})" in said
    assert f"resumed at step {int(before.name.split('-')[1])}" in said
    assert weights(run) == weights(alone)


def test_every_checkpoint_damaged(bert_folder: Path, workplace: Path, run: Path) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        _flip(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged") as caught:
        _resume(bert_folder, workplace, run)
    assert "--overwrite" in caught.value.hint


def test_a_crash_while_an_old_checkpoint_is_deleted_leaves_only_whole_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())

    def crash(folder: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            (folder / "model.safetensors").unlink()
            raise KeyboardInterrupt

    for step in (1, 2):
        save_checkpoint(tmp_path, step, model, optimizer, {"identity": "one"})
    with monkeypatch.context() as patched:
        patched.setattr("emb.distill.checkpoint.shutil.rmtree", crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 3, model, optimizer, {"identity": "one"})
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == ["step-00000002", "step-00000003"]
    save_checkpoint(tmp_path, 4, model, optimizer, {"identity": "one"})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize(
    "change",
    [
        {"training.lr": 2e-3},
        {"training.max_steps": 99},
        {"pairs": [[2, 32]]},
        {"student.layers": 1, "pairs": [[1, 16]]},
        {"student.source": "fresh:2x16"},
    ],
)
def test_changed_recipe_is_refused(change: dict[str, Any], bert_folder: Path, workplace: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match="other data, another recipe or another teacher") as caught:
        _resume(bert_folder, workplace, run, more=change)
    assert "undo the change" in caught.value.hint
    assert run_status(run) == "running"


def test_changed_data_is_refused(bert_folder: Path, workplace: Path, tmp_path: Path) -> None:
    data = corpus_file(tmp_path)
    run = tmp_path / "run"
    kill_when(
        start(distil, bert_folder, data, run, cache=workplace / "cache", more=OFTEN), lambda: latest_step(run) >= 1
    )
    with data.open("a", encoding="utf-8") as handle:
        handle.write('{"text": "one more"}\n')
    with pytest.raises(CheckpointError, match="other data"):
        distil(bert_folder, data, run, cache=workplace / "cache", resume=True)


def test_when_to_evaluate_and_save_may_change(bert_folder: Path, workplace: Path, alone: Path, run: Path) -> None:
    _resume(bert_folder, workplace, run, more={"training.evaluate_every": 7, "training.checkpoint_seconds": 1})
    assert weights(run) == weights(alone)
    assert 42 in [record["step"] for record in log(run)]


def test_nothing_to_resume(bert_folder: Path, workplace: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no run to resume") as caught:
        _resume(bert_folder, workplace, tmp_path / "nowhere")
    assert "--resume" in caught.value.hint
    assert not (tmp_path / "nowhere").exists()


def test_killed_while_the_teacher_ran_is_no_obstacle(
    bert_folder: Path, workplace: Path, alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()  # all that such a run leaves
    distil(bert_folder, workplace / "corpus.jsonl", tmp_path / "run", cache=workplace / "cache")
    assert weights(tmp_path / "run") == weights(alone)
