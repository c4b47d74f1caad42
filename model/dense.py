"""The projections behind pooling: read from sentence-transformers' Dense, cut to fewer dims, and taken apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from emb.artifact.layout import DensePart


class ResidualDense(nn.Module):
    """`activation(linear(x)) + residual(x)`: a Dense with `use_residual`."""

    def __init__(self, linear: nn.Linear, activation: nn.Module, residual: nn.Module) -> None:
        super().__init__()
        self.residual = residual
        self.linear = linear
        self.activation = activation

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors `(batch, out)` of vectors `(batch, in)`."""
        projected: Tensor = self.activation(self.linear(vectors)) + self.residual(vectors)
        return projected


def linear(weight: Tensor) -> nn.Linear:
    """A projection without bias from its weight `(out, in)`."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight.data.copy_(weight)
    return layer


def read_dense(module: Any) -> list[nn.Module]:
    """The steps of a Dense module of sentence-transformers."""
    if not getattr(module, "use_residual", False):
        return [module.linear, module.activation_function]
    return [ResidualDense(module.linear, module.activation_function, getattr(module, "residual", nn.Identity()))]


def projections(head: nn.Module) -> list[nn.Linear]:
    """The linear maps of a head, in order; the last has the head's width."""
    return [module for module in head.modules() if isinstance(module, nn.Linear)]


def is_linear(head: nn.Module) -> bool:
    """Whether a head is one linear map, or none: sums may be taken before it or behind it."""
    steps = list(head) if isinstance(head, nn.Sequential) else [head]
    return all(isinstance(step, nn.Identity) or (isinstance(step, nn.Linear) and step.bias is None) for step in steps)


def dense_parts(head: nn.Module) -> Iterator[DensePart]:
    """What a head writes, one part per Dense."""
    steps = list(head) if isinstance(head, nn.Sequential) else [head]
    for step, behind in zip(steps, [*steps[1:], nn.Identity()], strict=True):
        if isinstance(step, nn.Linear):
            yield DensePart(
                step.weight.detach(),
                step.bias,
                _path(nn.Identity() if isinstance(behind, nn.Linear | ResidualDense) else behind),
            )
        elif isinstance(step, ResidualDense):
            widened = step.residual.weight.detach() if isinstance(step.residual, nn.Linear) else None
            yield DensePart(step.linear.weight.detach(), step.linear.bias, _path(step.activation), True, widened)


def cut_head(head: nn.Module, dim: int, hidden: int) -> nn.Module:
    """A head that gives the first `dim` dims of what `head` gives; `hidden` is the width of its input."""
    found = projections(head)
    if not found:
        return nn.Identity() if dim == hidden else linear(torch.eye(dim, hidden))
    if found[-1].out_features == dim:
        return head
    cut = copy.deepcopy(head)
    last = list(cut)[-1] if isinstance(cut, nn.Sequential) else cut
    if isinstance(last, ResidualDense) and not isinstance(last.residual, nn.Linear):
        last.residual = linear(torch.eye(last.linear.in_features))
    for each in projections(last) or projections(cut)[-1:]:
        _keep_first(each, dim)
    return cut


def _keep_first(projection: nn.Linear, dim: int) -> None:
    projection.weight = nn.Parameter(projection.weight.detach()[:dim].clone())
    projection.bias = None if projection.bias is None else nn.Parameter(projection.bias.detach()[:dim].clone())
    projection.out_features = dim


def _path(activation: nn.Module) -> str:
    return f"{type(activation).__module__}.{type(activation).__qualname__}"
