"""Choices that the program makes, each seen from outside: what wins, what a score is of, what comes first."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_bert

from emb.artifact.fingerprints import weights_hash
from emb.artifact.manifest import Kind, LayerDimPair, Manifest, Variant
from emb.artifact.variants import distinct
from emb.cli import cli
from emb.data.evaluation_sets import RetrievalTask
from emb.distill import after_training as finish
from emb.distill import train
from emb.distill.projection import solve_ridge
from emb.errors import UsageError
from emb.evaluate.scores import Output
from emb.evaluate.scoring import _scores
from emb.export import healing_report as gains
from emb.export.heal import _Healing
from emb.model.embedding_model import load_model
from emb.quantize.vectors.rescoring import Stored, search
from emb.quantize.vectors.scalar import Float32Codec
from emb.quantize.weights import candidate, fitting
from emb.quantize.weights.fake import PRECISIONS, Dial
from emb.quantize.weights.judge import Trial
from emb.quantize.weights.schemes import Scheme
from emb.quantize.weights.select import _choose
from emb.runtime.encoder import _usable
from emb.similarity import Vectors, unit


def test_a_file_whose_texts_move_in_a_batch_fails_at_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = np.eye(3, 8, dtype=np.float32)
    moved = unit(alone + 0.04)  # near enough to the reference, and not near enough to itself
    monkeypatch.setattr(candidate, "write_scheme", lambda *given: tmp_path)
    monkeypatch.setattr(candidate, "graph_bytes", lambda path: 1)
    monkeypatch.setattr(candidate, "runner", lambda *given: None)
    for batched, passed in ((alone, True), (moved, False)):
        monkeypatch.setattr(candidate, "settings", lambda run, trial, batched=batched: [alone, batched, alone])
        recipe = Scheme("one", "for a test", lambda model, batches: None)
        found = candidate.measured(recipe, tmp_path, tmp_path, Trial(None, []), [alone] * 3, 0.9)  # type: ignore[arg-type]
        assert found.passed is passed
    assert found.min_cosine is not None
    assert found.min_cosine > 0.9
    assert "alone and in a batch" in found.reason


class _Subject:
    name, similarity = "student", "cosine"

    def fingerprint(self, point: Output) -> str:
        return "hash"


def test_the_asymmetric_score_is_of_the_teachers_documents() -> None:
    task = RetrievalTask("task", {"q": "a"}, {"right": "b", "wrong": "c"}, {"q": {"right": 1}})
    point = Output(1, "fp32")
    queries, own, teachers = np.float32([[1, 0]]), np.float32([[1, 0], [0, 1]]), np.float32([[0, 1], [1, 0]])
    found = {
        score.side: score.value
        for score in _scores(task, _Subject(), ({point: queries}, {point: own}), [2], teachers, [])
    }  # type: ignore[arg-type]
    assert found["symmetric"] == 100
    assert found["asymmetric"] < 100


def test_weights_of_a_projection_are_in_the_fingerprint(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "model", dim=24)
    before = weights_hash(folder)
    path = folder / "2_Dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert weights_hash(folder) != before


def test_where_a_file_must_shrink_the_matrix_that_loses_least_per_byte_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class _Node:
        def __init__(self, name: str) -> None:
            self.input, self.output = ["x", f"{name}_w"], [name]

    class _Model:
        graph = None

    class _Tensor:
        dims = (64, 64)

    losses = {"worst": 0.9, "best": 0.01, "middle": 0.1}
    monkeypatch.setattr(fitting, "product_losses", lambda model, batches: losses)
    monkeypatch.setattr(fitting, "weighted", lambda graph: [_Node(name) for name in losses])
    monkeypatch.setattr(fitting, "tensors", lambda graph: {f"{name}_w": _Tensor() for name in losses})
    assert fitting.to_fit(_Model(), [], 1) == {"best"}  # type: ignore[arg-type]
    assert fitting.to_fit(_Model(), [], fitting._saving(64, 64) + 1) == {"best", "middle"}  # type: ignore[arg-type]


def _healing(binary: bool = False) -> Any:
    healing = object.__new__(_Healing)
    healing.binary, healing.pairs, healing.dial = binary, [LayerDimPair(1, 4)], Dial()
    healing.turns, healing.step = [PRECISIONS["int8"], PRECISIONS["int4"]], 0
    return healing


def test_binary_healing_has_the_loss_of_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.Training, "loss", lambda self, outputs, targets: torch.zeros(()))
    outputs, targets = {1: torch.tensor([[3.0, 1.0, 0.1, 0.1]])}, torch.tensor([[3.0, 1.0, 0.1, 0.1, 9.0]])
    assert _healing().loss(outputs, targets) == 0
    assert _healing(binary=True).loss(outputs, targets) > 0.1


def test_precisions_take_turns_while_healing(monkeypatch: pytest.MonkeyPatch) -> None:
    healing, seen = _healing(), []
    monkeypatch.setattr(
        train.Training, "_train_step", lambda self, batch, rate: seen.append(self.dial.precision.name) or 0.0
    )
    for healing.step in range(4):
        healing._train_step(np.arange(2), 0.1)
    assert seen == ["int8", "int4", "int8", "int4"]


def test_a_projections_power_is_chosen_by_search_among_the_teachers_vectors(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = load_model(bert_folder)
    student.heads["3"] = torch.nn.Linear(32, 24, bias=False)
    targets = np.random.default_rng(0).standard_normal((120, 24)).astype(np.float32)
    sought: list[Any] = []

    def overlap(vectors: Vectors, goal: Vectors, index: Vectors | None = None, **options: Any) -> float:
        sought.append(index)
        return -len(sought)  # the first power is the best

    monkeypatch.setattr(finish, "neighbour_overlap", overlap)
    rows = student.tokenizer().encode([f"the cat sat {number}" for number in range(120)])
    chosen = finish.flatten_projections(student, rows, targets, [LayerDimPair(3, 16)], (0.5, 1.0), tokens_per_batch=512)
    assert chosen == {3: 0.5}
    assert all(np.array_equal(index, targets[:, :16]) for index in sought)


def test_the_ridge_grows_with_the_texts() -> None:
    rng = np.random.default_rng(0)
    states, goal = (torch.from_numpy(rng.standard_normal((50, width))) for width in (6, 3))
    once = solve_ridge(states.T @ states, states.T @ goal, 0.1)
    ten_times = solve_ridge(10 * states.T @ states, 10 * states.T @ goal, 0.1)
    torch.testing.assert_close(once, ten_times)


def test_the_time_of_a_short_text_counts_in_the_choice() -> None:
    slow, quick = (
        candidate.Candidate(name, "", 1, 1.0, 1.0, 1.0, latency, texts, True)
        for name, latency, texts in (("slow", 10.0, 100.0), ("quick", 1.0, 90.0))
    )
    assert _choose([slow, quick], 0.99, None).name == "quick"


def test_as_many_documents_are_rescored_as_are_asked_for() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((40, 8)))
    documents = Stored(Float32Codec(8), vectors)
    rows, scores = search(vectors[:3], documents, 10, rescore=documents, depth=3)
    assert rows.shape == scores.shape == (3, 10)


def test_healing_tells_search_among_the_teachers_vectors_from_search_among_its_own() -> None:
    rng = np.random.default_rng(0)
    goal = rng.standard_normal((60, 8)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    found = gains._figures((goal @ turn).astype(np.float32), goal)
    assert found["overlap"] == 1
    assert found["asymmetric"] < 0.5


def test_int8_is_served_before_fp32_and_4_bits_last(tmp_path: Path) -> None:
    manifest = Manifest(Kind.SLICE, 1, 8, "mean", True, 64)
    for dtype in ("int4", "fp16", "fp32", "int8"):
        (tmp_path / dtype).write_bytes(b"")
        manifest.variants.append(Variant(dtype, dtype))
    assert [variant.file for variant in _usable(manifest, tmp_path)] == ["int8", "fp32", "fp16", "int4"]
    manifest.files = {"int4": "a", "fp16": "b", "fp32": "b", "int8": "c"}
    assert [variant.file for variant in distinct(manifest)] == ["int4", "fp16", "int8"]


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("emb.validate.proof.validate", ["validate", "x"]),
        ("emb.export", ["export", "x"]),
        ("emb.load", ["encode", "in.txt", "out.npy", "--model", "x"]),
        ("emb.evaluate.evaluate.evaluate", ["evaluate", "x", "--data", "y"]),
        ("emb.publish.push.push", ["push", "--to", "me/x", "x"]),
    ],
)
def test_no_verify_reaches_what_verifies(
    place: str, words: list[str], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def stop(*given: Any, **options: Any) -> None:
        seen.update(options)
        raise UsageError("far enough")

    module, name = place.rsplit(".", 1)
    monkeypatch.setattr(importlib.import_module(module), name, stop)
    with pytest.raises(UsageError, match="far enough"):
        cli.main([*words, *(["--no-verify"] if asked else [])], standalone_mode=False)
    assert seen["verify"] is not asked


def _mutants() -> Any:
    spec = importlib.util.spec_from_file_location("mutants", Path(__file__).parents[1] / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    mutants = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = mutants  # dataclasses look their module up
    spec.loader.exec_module(mutants)
    return mutants


@pytest.mark.parametrize(
    ("status", "said", "verdict"),
    [
        (0, "said\ns..   [100%]\n", "SURVIVED"),
        (0, "sss.ss [a path]\nsss    [100%]\n", "SKIPPED: its tests need what is not installed here"),
        (1, "..F    [100%]\n", "killed"),
        (4, "no such test", "BROKEN: pytest exits 4: no such test"),
    ],
)
def test_a_fault_that_no_test_looked_at_has_not_survived(
    status: int, said: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutants = _mutants()
    (tmp_path / "a.py").write_text("1 < 2", encoding="utf-8")
    monkeypatch.setattr(mutants, "run_tests", lambda tree, tests: (status, said))
    assert mutants.Fault("less", "a.py", "<", ">", ["a.py"]).verdict(tmp_path) == verdict
    assert (tmp_path / "a.py").read_text(encoding="utf-8") == "1 < 2"


def test_mutants_apply() -> None:
    mutants = _mutants()
    faults = mutants.read_faults()
    assert mutants.problems(faults) == []
    rooms = Counter(fault.room for fault in faults)
    assert len(faults) >= 60
    assert set(rooms) == set(mutants.ROOMS)
    assert min(rooms.values()) >= 4
