"""Which rows stay, by a learned threshold on the norm of each (OptEmbed, Lyu et al. 2022, arXiv 2208.04482).

A row is read if its norm is above its threshold. The step between the two has the paper's stand-in for a gradient, and
its pressure, exp(-threshold), drives thresholds up. The paper trains the rows too, so that their norms learn; here
the model is trained already and the rows stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emb.distill.train import Split
from emb.model.embedding_model import EmbeddingModel
from emb.recipes.recipe import TrainingRecipe
from emb.vocabulary.adaptation.gates import Gates, kept_by_gates
from emb.vocabulary.surgery import table_of


def kept_by_thresholds(
    model: EmbeddingModel,
    train: Split,
    *,
    rows: int,
    always: Collection[int],
    recipe: TrainingRecipe,
    folder: Path,
    fallback: Tensor | None = None,
) -> list[int]:
    """The ids of the `rows` rows whose norms are furthest above their thresholds after training, ascending.

    All of `always` are among them. `fallback`, `train` and `folder` are as for `kept_by_masks`.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
    """
    thresholds = Thresholds(table_of(model).detach(), always)
    return kept_by_gates(
        model, thresholds, train, rows=rows, always=always, recipe=recipe, folder=folder, fallback=fallback
    )


class Thresholds(Gates):
    """A hard gate per row: open where the row's norm is above the threshold, which starts at zero."""

    norms: Tensor

    def __init__(self, table: Tensor, always: Collection[int]) -> None:
        super().__init__(len(table), always)
        norms = table.float().norm(p=1, dim=1)  # the paper's norm
        # In units of the mean norm: the step's gradient reaches as far as 1 from the threshold.
        self.register_buffer("norms", norms / norms.mean(), persistent=False)
        self.thresholds = nn.Parameter(torch.zeros(len(table)))

    def openness(self) -> Tensor:
        opened: Tensor = _Step.apply(self.scores())  # type: ignore[no-untyped-call]
        return opened

    def scores(self) -> Tensor:
        return self.norms - self.thresholds

    def pressure(self) -> Tensor:
        return torch.exp(-self.thresholds)[~self.fixed].mean()


class _Step(torch.autograd.Function):
    """1 above zero, else 0; backward, a gradient that is high at zero and reaches as far as 1 (Xu and Cheung 2019)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return (values > 0).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        distance = ctx.saved_tensors[0].abs()
        slope = torch.where(distance <= 0.4, 2 - 4 * distance, torch.where(distance <= 1, 0.4, 0.0))
        return gradients[0] * slope
