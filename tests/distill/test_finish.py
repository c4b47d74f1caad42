"""What follows training: averaged weights and flatter projections, each held to the law it rests on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import corpus_file, distil, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.artifact.manifest import LayerDimPair, Manifest, PairScores
from emb.distill import one_student as room
from emb.distill.after_training import average, flatten_projections, flattened
from emb.distill.costs import with_costs
from emb.errors import CheckpointError
from emb.model.dense import linear
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.similarity import unit

POWERS = (1.0, 0.5, 0.25)


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 1), st.integers(0, 10_000))
def test_flattening_keeps_size_and_directions(rows: int, columns: int, power: float, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(rows, columns))
    found = flattened(weight, power)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(weight))
    before, after = (np.linalg.svd(each, compute_uv=False) for each in (weight, found))
    assert after.max() * before.min() <= before.max() * after.min() * (1 + 1e-6)  # never steeper
    left, _, right = np.linalg.svd(weight, full_matrices=False)
    inside = left.T @ found @ right.T
    assert np.allclose(inside, np.diag(np.diag(inside)), atol=1e-8)


@given(st.integers(1, 9), st.integers(0, 10_000))
def test_a_projection_without_shrinkage_is_left_alone_by_every_power(size: int, seed: int) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    assert np.allclose(flattened(rotation, 0.3), rotation)


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 10_000))
def test_power_0_leaves_search_among_the_students_own_vectors_as_it_was(size: int, wider: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    states, weight = rng.normal(size=(5, size)), rng.normal(size=(size, size + wider))
    found = states @ flattened(weight, 0.0)
    alike, before = (unit(each, np.float64) @ unit(each, np.float64).T for each in (found, states))
    assert np.allclose(alike, before)


def _student(folder: Path, weight: torch.Tensor) -> EmbeddingModel:
    student = load_model(folder)
    student.heads = torch.nn.ModuleDict({"3": linear(weight)})
    return student


def _states(student: EmbeddingModel, count: int) -> tuple[list[np.ndarray], np.ndarray]:  # type: ignore[type-arg]
    rows = student.tokenizer().encode(texts(count))
    ids, mask = (torch.from_numpy(array) for array in student.tokenizer().pad(rows))
    with torch.inference_mode():
        return rows, student.pooled(ids, mask, [3])[3].double().numpy()


def test_a_perfect_projection_is_kept(bert_folder: Path) -> None:
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(0))
    student = _student(bert_folder, weight)
    rows, states = _states(student, 120)
    targets = (states @ weight.double().numpy().T).astype(np.float32)
    assert flatten_projections(
        student, rows, targets, [LayerDimPair(3, 8), LayerDimPair(3, 24)], POWERS, tokens_per_batch=256
    ) == {3: 1.0}
    assert torch.allclose(student.heads["3"].weight, weight, atol=1e-5)


def test_a_shrunk_projection_is_flattened(bert_folder: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(32, 32))
    student = _student(bert_folder, torch.randn(32, 32))
    rows, states = _states(student, 120)
    left, values, right = np.linalg.svd(weight)
    true = (left * values**0.5) @ right  # the teacher, of which the projection is a steeper image
    student.heads["3"].weight.data.copy_(torch.from_numpy(weight.T))
    assert flatten_projections(
        student, rows, (states @ true).astype(np.float32), [LayerDimPair(3, 32)], POWERS, tokens_per_batch=256
    ) == {3: 0.5}


def test_a_single_power_is_taken_without_held_out_texts(bert_folder: Path) -> None:
    student = _student(bert_folder, torch.randn(48, 32, generator=torch.Generator().manual_seed(0)))
    targets = np.zeros((0, 48), np.float32)
    chosen = flatten_projections(student, [], targets, [LayerDimPair(3, 48)], [0.0], tokens_per_batch=256)
    values = torch.linalg.svdvals(student.heads["3"].weight.detach())
    assert chosen == {3: 0.0}
    assert torch.allclose(values, values[0].expand(32), rtol=1e-4)


def test_a_student_for_both_sides_searches_as_before_its_projection(bert_folder: Path, tmp_path: Path) -> None:
    more = {"training.epochs": 0, "projection.powers": [0]}
    student = load_model(distil(bert_folder, corpus_file(tmp_path), tmp_path / "run", more=more).student)
    assert student.dim >= student.hidden
    ids, mask = (torch.from_numpy(array) for array in student.tokenizer().pad(student.tokenizer().encode(texts(30))))
    depth = student.layers
    with torch.inference_mode():
        found, states = (of(ids, mask, [depth])[depth].double().numpy() for of in (student, student.pooled))
    alike, before = (unit(each, np.float64) @ unit(each, np.float64).T for each in (found, states))
    assert np.allclose(alike, before, atol=1e-5)


def test_average_goes_between(bert_folder: Path) -> None:
    student = load_model(bert_folder)
    start = {name: weight.detach().clone() for name, weight in student.named_parameters() if "embeddings" not in name}
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1.0)
    average(student, start, 0.25)
    moved = {
        name: float((weight.detach() - start[name]).mean())
        for name, weight in student.named_parameters()
        if name in start
    }
    assert all(found == pytest.approx(0.25, abs=1e-4) for found in moved.values())


def test_a_run_ends_between_its_start_and_its_training(bert_folder: Path, tmp_path: Path) -> None:
    corpus = corpus_file(tmp_path)
    found = {}
    for share in (1.0, 0.5):
        folder = distil(
            bert_folder, corpus, tmp_path / f"run{share}", more={"training.average": share, "projection.powers": [1.0]}
        ).run
        found[share] = load_model(folder / "student").encoder.state_dict()
        assert not (folder / room.START).exists()
        assert set(Manifest.load(folder / "student").lineage.projection_powers.values()) == {1.0}
    start = distil(bert_folder, corpus, tmp_path / "start", more={"training.epochs": 0, "projection.powers": [1.0]})
    before = load_model(start.student).encoder.state_dict()
    name = next(name for name in before if "layer.0.output.dense.weight" in name)
    assert torch.allclose(found[0.5][name], (before[name] + found[1.0][name]) / 2, atol=1e-6)
    assert not torch.allclose(found[1.0][name], before[name], atol=1e-6)


def test_a_run_stopped_before_its_end_finishes_as_one_left_alone(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, more = corpus_file(tmp_path), {"training.average": 0.5, "training.checkpoint_seconds": 0}
    whole = distil(bert_folder, corpus, tmp_path / "whole", more=more)
    with monkeypatch.context() as patched:
        patched.setattr(room, "_save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            distil(bert_folder, corpus, tmp_path / "stopped", more=more)
    kept = (tmp_path / "stopped" / room.START).read_bytes()
    (tmp_path / "stopped" / room.START).write_bytes(kept[:100])
    with pytest.raises(CheckpointError, match=r"start\.safetensors"):
        distil(bert_folder, corpus, tmp_path / "stopped", resume=True)
    (tmp_path / "stopped" / room.START).write_bytes(kept)
    again = distil(bert_folder, corpus, tmp_path / "stopped", resume=True)
    for name, weight in load_model(whole.student).state_dict().items():
        assert torch.equal(weight, load_model(again.student).state_dict()[name]), name


def test_a_query_is_timed_until_its_vector_is_there(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU goes on computing after the call has returned."""

    class Computing:
        def cpu(self) -> None:
            time.sleep(0.01)

    model = load_model(bert_folder)
    monkeypatch.setattr(EmbeddingModel, "embed", lambda *_: Computing())
    [found] = with_costs([PairScores(model.layers, model.dim, 1.0, 1.0)], model, model.tokenizer().encode(texts(3)))
    assert (found.milliseconds or 0) >= 10
