"""The loss at every (layers, dim) pair: a perfect student scores nothing, a known one a known value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emb.artifact.manifest import LayerDimPair
from emb.distill.losses import TERMS, objective_of, pair_losses
from emb.errors import UsageError

DIM = 12
PAIRS = [LayerDimPair(layers, dim) for layers in (1, 2) for dim in (1, 5, DIM)]
# Away from zero in the first component, so that no prefix is a zero vector.
vectors = arrays(np.float32, (6, DIM), elements=st.floats(-3, 3, width=16)).map(
    lambda a: torch.from_numpy(a + np.eye(1, DIM, dtype=np.float32) * 8)
)


@settings(max_examples=50)
@given(vectors, st.sampled_from(list(TERMS)), st.floats(0.1, 10))
def test_perfect_student_of_a_unit_teacher_scores_zero_at_every_prefix(
    teacher: torch.Tensor, loss: str, scale: float
) -> None:
    teacher = torch.nn.functional.normalize(teacher, dim=-1)
    losses = pair_losses(
        {1: teacher * scale, 2: teacher}, teacher, PAIRS, objective=objective_of([{loss: 1.0}]), unit=True
    )
    assert list(losses) == PAIRS
    assert all(abs(float(value)) < 1e-5 for value in losses.values())


@settings(max_examples=50)
@given(vectors, st.sampled_from(list(TERMS)))
def test_perfect_student_of_a_raw_teacher_scores_zero_at_every_prefix(teacher: torch.Tensor, loss: str) -> None:
    losses = pair_losses(
        {1: teacher, 2: teacher.clone()}, teacher, PAIRS, objective=objective_of([{loss: 1.0}]), unit=False
    )
    assert all(abs(float(value)) < 1e-5 for value in losses.values())


def test_l2_of_a_raw_teacher_sees_the_length() -> None:
    teacher = torch.ones(3, 4)
    pair = LayerDimPair(1, 4)
    raw = pair_losses({1: 2 * teacher}, teacher, [pair], objective=objective_of([{"l2": 1.0}]), unit=False)
    unit = pair_losses({1: 2 * teacher}, teacher, [pair], objective=objective_of([{"l2": 1.0}]), unit=True)
    assert float(raw[pair]) == pytest.approx(4.0)
    assert float(unit[pair]) == pytest.approx(0.0, abs=1e-6)


def test_known_values() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    pair = LayerDimPair(1, 2)
    values = [
        float(pair_losses({1: student}, teacher, [pair], objective=objective_of([{loss: 1.0}]), unit=True)[pair])
        for loss in ("cosine", "l2")
    ]
    assert values == pytest.approx([0.5, 1.0])  # one text right, one at a right angle: cosine 0, distance² 2


def test_gradient_points_towards_the_teacher() -> None:
    student = torch.tensor([[1.0, 0.2]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0]])
    pair = LayerDimPair(1, 2)
    pair_losses({1: student}, teacher, [pair], objective=objective_of([{"cosine": 1.0}]), unit=True)[pair].backward()
    assert student.grad is not None
    assert float((student.grad * (teacher - student.detach())).sum()) < 0


def test_terms_add_up_by_their_weights() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    pair = LayerDimPair(1, 2)
    both = pair_losses({1: student}, teacher, [pair], objective=objective_of([{"cosine": 3.0}, {"l2": 0.5}]), unit=True)
    assert float(both[pair]) == pytest.approx(3 * 0.5 + 0.5 * 1.0)
    with pytest.raises(UsageError, match="term 'cosin' is unknown") as refused:
        objective_of([{"cosin": 1.0}])
    assert "cosine, l2" in refused.value.hint
