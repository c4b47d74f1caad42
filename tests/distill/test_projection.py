"""The closed-form start: ridge regression recovers a linear map, exit by exit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import texts
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.distill.projection import fit_projections, solve_ridge
from emb.model.embedding_model import load_model
from emb.teachers.cache import TeacherEmbeddings


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 10_000))
def test_ridge_recovers_a_linear_map(hidden: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    states, weight = (
        torch.from_numpy(rng.normal(size=(8 * hidden, hidden))),
        torch.from_numpy(rng.normal(size=(dim, hidden))),
    )
    found = solve_ridge(states.T @ states, states.T @ (states @ weight.T), 1e-10)
    assert found.shape == (dim, hidden)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), weight, atol=1e-4)


def test_ridge_shrinks_towards_zero_and_bears_a_singular_gram() -> None:
    states = torch.ones(10, 4, dtype=torch.float64)  # rank 1
    cross = states.T @ torch.ones(10, 2, dtype=torch.float64)
    norms = [float(solve_ridge(states.T @ states, cross, ridge).norm()) for ridge in (1e-6, 1e-1, 10.0)]
    assert all(np.isfinite(norms))
    assert norms == sorted(norms, reverse=True)


def _targets(vectors: np.ndarray) -> TeacherEmbeddings:  # type: ignore[type-arg]
    records = np.empty(len(vectors), np.dtype([("key", "V16"), ("vector", "<f2", (vectors.shape[1],))]))
    records["vector"] = vectors
    return TeacherEmbeddings([records], np.asarray([(0, row) for row in range(len(vectors))], np.int64))


def test_every_exit_finds_its_own_map(bert_folder: Path) -> None:
    student = load_model(bert_folder)
    rows = student.tokenizer().encode(texts(200))
    teacher = load_model(bert_folder)
    with torch.inference_mode():
        states = torch.stack(
            [teacher.pooled(*(torch.from_numpy(a) for a in teacher.tokenizer().pad([row])), [2])[2][0] for row in rows]
        )
    goal = states @ torch.randn(32, 24, generator=torch.Generator().manual_seed(0))
    fit_projections(student, rows, _targets(goal.numpy()), [1, 2, 3], ridge=1e-7, tokens_per_batch=256)
    assert student.exits == [1, 2, 3]
    assert student.dim == 24
    error = {n: _relative_error(student, rows, goal, n) for n in student.exits}
    assert error[2] < 0.01  # the layer the targets were made from; the cache holds halves
    assert error[2] < min(error[1], error[3])


def _relative_error(student, rows, goal: torch.Tensor, exit_: int) -> float:  # type: ignore[no-untyped-def]
    ids, mask = (torch.from_numpy(array) for array in student.tokenizer().pad(rows))
    with torch.inference_mode():
        found = student(ids, mask, [exit_])[exit_]
    return float((found - goal).norm() / goal.norm())


def test_fit_does_not_depend_on_the_batches(bert_folder: Path) -> None:
    fitted = []
    for budget in (64, 2048):
        student = load_model(bert_folder)
        rows = student.tokenizer().encode(texts(100))
        targets = _targets(np.random.default_rng(0).normal(size=(100, 8)))
        fit_projections(student, rows, targets, [3], ridge=1e-2, tokens_per_batch=budget)
        fitted.append(student.heads["3"].weight.detach())
    difference = (fitted[0] - fitted[1]).abs()
    print(f"max {difference.max():.2e}, mean {difference.mean():.2e}")
    assert float(difference.max()) == pytest.approx(0, abs=1e-2 * float(fitted[0].abs().max()))
