"""Projections: a head cut to fewer dims gives the first dims of the whole one, and is written part by part."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from emb.artifact.layout import DensePart
from emb.model.dense import ResidualDense, cut_head, dense_parts, linear, projections

HEADS: dict[str, Callable[[], nn.Module]] = {
    "nothing": nn.Identity,
    "one without bias": lambda: linear(torch.randn(12, 8)),
    "one with an activation": lambda: nn.Sequential(nn.Linear(8, 12), nn.Tanh()),
    "two": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.Identity()),
    "a residual of other width": lambda: nn.Sequential(
        ResidualDense(nn.Linear(8, 12), nn.Tanh(), nn.Linear(8, 12, bias=False))
    ),
    "a residual of the same width": lambda: nn.Sequential(
        nn.Linear(8, 12), nn.Tanh(), ResidualDense(nn.Linear(12, 12), nn.ReLU(), nn.Identity())
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_cut_head_gives_the_first_dims(name: str) -> None:
    torch.manual_seed(0)
    head, vectors = HEADS[name](), torch.randn(5, 8)
    expected = head(vectors)
    before = [tensor.clone() for tensor in head.state_dict().values()]
    for dim in (1, 5, expected.shape[1]):
        torch.testing.assert_close(cut_head(head, dim, 8)(vectors), expected[:, :dim])
    assert all(torch.equal(old, new) for old, new in zip(before, head.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", [name for name in HEADS if name != "nothing"])
def test_the_parts_are_those_of_the_head(name: str) -> None:
    torch.manual_seed(0)
    head, vectors = HEADS[name](), torch.randn(5, 8)
    for dim in (5, 12):
        cut, found = cut_head(head, dim, 8), vectors
        for part in dense_parts(cut):
            found = _applied(part, found)
        torch.testing.assert_close(found, cut(vectors))
        assert projections(cut)[-1].out_features == dim


def _applied(part: DensePart, vectors: torch.Tensor) -> torch.Tensor:
    activation = {"Identity": nn.Identity(), "Tanh": nn.Tanh(), "ReLU": nn.ReLU()}[part.activation.split(".")[-1]]
    projected: torch.Tensor = activation(nn.functional.linear(vectors, part.weight, part.bias))
    if not part.residual:
        return projected
    return projected + (vectors if part.residual_weight is None else vectors @ part.residual_weight.T)
