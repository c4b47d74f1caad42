"""The training loop: it learns, it stops when told, it refuses nonsense, and it can share the work."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilling import corpus_file, distil, finish, latest_step, log, ranked, reporting, start, texts, wait_for, weights

from emb.artifact.manifest import LayerDimPair
from emb.distill import loop as room
from emb.distill.train import Split, Training, freeze
from emb.errors import TrainingError
from emb.model.dense import linear
from emb.model.embedding_model import EmbeddingModel, cut_layers, load_model
from emb.recipes.recipe import TrainingRecipe
from emb.teachers.cache import TeacherEmbeddings

DIM = 24


def _split(model: EmbeddingModel, count: int, seed: int, dim: int = DIM) -> Split:
    records = np.empty(count, np.dtype([("key", "V16"), ("vector", "<f2", (dim,))]))
    records["vector"] = np.random.default_rng(seed).normal(size=(count, dim))
    return Split(
        model.tokenizer().encode(texts(count)),
        TeacherEmbeddings([records], np.asarray([(0, row) for row in range(count)])),
    )


def _training(folder: Path, out: Path, **recipe: Any) -> Training:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = load_model(folder)
    cut_layers(student, [0, 1])
    student.heads = torch.nn.ModuleDict({"1": linear(torch.randn(DIM, 32)), "2": linear(torch.randn(DIM, 32))})
    out.mkdir(exist_ok=True)
    values = {
        "precision": "fp32",
        "max_steps": 40,
        "epochs": 50,
        "tokens_per_batch": 256,
        "lr": 3e-3,
        "warmup_steps": 2,
        **recipe,
    }
    pairs = [LayerDimPair(1, 8), LayerDimPair(2, DIM)]
    return Training(
        student,
        _split(student, 24, 0),
        _split(student, 12, 1),
        pairs,
        TrainingRecipe.model_validate(values),
        out,
        "identity",
    )


@pytest.mark.parametrize("loss", ["cosine", "l2"])
def test_loss_falls(bert_folder: Path, tmp_path: Path, loss: str) -> None:
    training = _training(bert_folder, tmp_path / "run", loss=loss)
    training.run()
    first, last = (record["loss"] for record in log(tmp_path / "run") if "loss" in record)
    assert last < 0.9 * first


def test_log_holds_what_was_done(bert_folder: Path, tmp_path: Path) -> None:
    training = _training(bert_folder, tmp_path / "run", evaluate_every=10, cycles=2, warmup_steps=0, lr_end=1e-3)
    training.run()
    scores = training.evaluate()
    records = log(tmp_path / "run")
    assert [record["step"] for record in records if "cosine" in record] == [0, 10, 20, 30, 40]
    losses = [record for record in records if "loss" in record]
    assert [record["step"] for record in losses] == [20, 40]
    # Of the step that was made, not of the next.
    assert [record["lr"] for record in losses] == pytest.approx([1.1e-3, 1.1e-3])
    assert losses[1]["texts"] > losses[0]["texts"] > 20
    assert losses[1]["seconds"] > losses[0]["seconds"] > 0
    assert {f"{s.layers}x{s.dim}": s.cosine for s in scores} == records[-1]["cosine"]


def test_zero_epochs_leave_the_closed_form_start(bert_folder: Path, tmp_path: Path) -> None:
    training = _training(bert_folder, tmp_path / "run", epochs=0)
    before = {name: value.clone() for name, value in training.student.state_dict().items()}
    training.run()
    scores = training.evaluate()
    assert all(torch.equal(before[name], value) for name, value in training.student.state_dict().items())
    assert [record["step"] for record in log(tmp_path / "run")] == [0]
    assert len(scores) == 2


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"max_steps": 7}, lambda epoch: 7),
        ({"max_steps": None, "epochs": 2}, lambda epoch: 2 * epoch),
        ({"max_steps": None, "epochs": 0.01}, lambda epoch: 1),
        ({"max_steps": 3, "epochs": 0.01}, lambda epoch: 1),
    ],
)
def test_number_of_steps(given: dict[str, Any], steps: Callable[[int], int], bert_folder: Path, tmp_path: Path) -> None:
    training = _training(bert_folder, tmp_path / "run", **given)
    training.run()
    assert training.step == steps(len(training.plan.epoch(0)))


def test_max_time_shortens_plan_and_schedule(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(10**9))
    monkeypatch.setattr(room.time, "monotonic", lambda: next(clock) * 0.1)  # a tenth of a second passes at each look
    training = _training(bert_folder, tmp_path / "run", max_steps=2000, max_time=10, checkpoint_seconds=1e9)
    training.run()
    assert 20 < training.step < 200
    assert f"{training.total:,} steps fit into 10 s" in capsys.readouterr().err
    assert training._rate() == pytest.approx(3e-3)  # the plan ends here: the next step would begin a cycle


def test_slow_first_steps_do_not_cost_the_plan_its_time(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the first steps load the kernels, and take a hundred times as long as those that follow."""
    training = _training(bert_folder, tmp_path / "run", max_steps=2000, max_time=10, checkpoint_seconds=1e9)
    now, original = 0.0, training._train_step

    def step(*arguments: Any) -> float:
        nonlocal now
        now += 1.0 if training.step < 5 else 0.05
        return original(*arguments)

    monkeypatch.setattr(room.time, "monotonic", lambda: now)
    monkeypatch.setattr(training, "_train_step", step)
    training.run()
    assert now == pytest.approx(10)
    assert training.step == training.total == 105


def test_max_time_holds_for_a_run_resumed_before_it_was_timed(bert_folder: Path, tmp_path: Path) -> None:
    given = {"max_steps": 100_000, "epochs": 100_000, "max_time": 0.5, "checkpoint_seconds": 0}
    first = _training(bert_folder, tmp_path / "run", **given)
    original = first._train_step

    def stops(*arguments: Any) -> float:
        if first.step == 5:
            raise RuntimeError("power cut")
        return original(*arguments)

    first._train_step = stops  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="power cut"):
        first.run()
    second = _training(bert_folder, tmp_path / "run", **given)
    second.run()
    assert 20 <= second.step < 10_000


def test_loss_that_is_no_number(bert_folder: Path, tmp_path: Path) -> None:
    training = _training(bert_folder, tmp_path / "run", checkpoint_seconds=0)
    with torch.no_grad():
        training.student.heads["2"].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the training diverges: the loss is nan at step 0") as caught:
        training.run()
    assert "training.lr" in caught.value.hint
    assert not (tmp_path / "run" / "checkpoints").exists(), "a checkpoint of NaNs was written"


def test_two_precisions_in_one_process(bert_folder: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16", "fp32"):
        training = _training(bert_folder, tmp_path / precision, precision=precision, max_steps=2)
        assert training.accelerator.mixed_precision == {"fp32": "no", "bf16": "bf16"}[precision]
        training.run()
        scores = training.evaluate()
        assert all(np.isfinite(score.cosine) for score in scores)
        assert next(training.student.parameters()).dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_to_the_bit_in_either_precision(precision: str, bert_folder: Path, tmp_path: Path) -> None:
    whole = _training(bert_folder, tmp_path / "whole", precision=precision, max_steps=12)
    whole.run()
    first = _training(bert_folder, tmp_path / "cut", precision=precision, max_steps=12, checkpoint_seconds=0)
    original = first._checkpoint

    def stops() -> None:
        original()
        if first.step == 5:
            raise RuntimeError("power cut")

    first._checkpoint = stops  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="power cut"):
        first.run()
    second = _training(bert_folder, tmp_path / "cut", precision=precision, max_steps=12)
    with torch.no_grad():  # the checkpoint must bring every trained weight
        for parameter in second.student.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    second.run()
    expected = whole.student.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in second.student.state_dict().items())


def test_freeze(bert_folder: Path) -> None:
    student = load_model(bert_folder)
    table = student.encoder.get_input_embeddings().weight
    student.train()
    freeze(student, train_token_embeddings=False)
    assert not table.requires_grad
    assert not any(module.training for module in student.modules()), "dropout is on"
    assert sum(parameter.requires_grad for parameter in student.parameters()) == len(list(student.parameters())) - 1
    freeze(student, train_token_embeddings=True)
    assert table.requires_grad


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_make_one_student(bert_folder: Path, tmp_path: Path) -> None:
    data, port = corpus_file(tmp_path), _free_port()
    more = {"training.max_steps": 12, "training.checkpoint_seconds": 0, "training.evaluate_every": 6}
    processes = [
        start(ranked, rank, 2, port, distil, bert_folder, data, tmp_path / "run", more=more) for rank in range(2)
    ]
    assert [finish(process) for process in processes] == [0, 0]
    run = tmp_path / "run"
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "finished"
    assert [record["step"] for record in log(run) if "cosine" in record] == [0, 6, 12]
    assert load_model(run / "student").exits == [1, 2]
    again = [
        start(ranked, rank, 2, port, distil, bert_folder, data, tmp_path / "again", more=more) for rank in range(2)
    ]
    assert [finish(process) for process in again] == [0, 0]
    assert weights(tmp_path / "again") == weights(run)
    single = start(distil, bert_folder, data, tmp_path / "single", more=more)
    assert finish(single) == 0
    assert weights(tmp_path / "single") != weights(run), "the second process added nothing"


@pytest.mark.slow
def test_what_stops_one_process_stops_both_at_one_step(bert_folder: Path, tmp_path: Path) -> None:
    data, port, run = corpus_file(tmp_path), _free_port(), tmp_path / "run"
    more = {"training.epochs": 400, "training.checkpoint_seconds": 0}
    told = [tmp_path / f"{rank}.txt" for rank in range(2)]
    processes = [
        start(ranked, rank, 2, port, reporting, told[rank], distil, bert_folder, data, run, more=more)
        for rank in range(2)
    ]
    wait_for(processes[0], lambda: latest_step(run) > 3)
    processes[1].terminate()  # not the one that writes checkpoints
    assert [finish(process, 60) for process in processes] == [0, 0]
    assert ["KeyboardInterrupt" in told[0].read_text(), "Terminated" in told[1].read_text()] == [True, True]
    assert "RuntimeError" not in told[0].read_text(), "it was left waiting for the other"
    stopped = latest_step(run)
    assert stopped > 3
    assert [record["step"] for record in log(run) if record["step"] > stopped] == []


def test_a_loss_that_is_no_number_in_one_process_ends_all(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = _training(bert_folder, tmp_path / "run")
    monkeypatch.setattr(training, "_any", lambda here: True)  # as another process says it
    with pytest.raises(TrainingError, match="diverges"):
        training.run()
