"""Which rows stay, by a learned soft mask on each (AMTL, Yan et al. 2021, arXiv 2108.11513, taken to whole rows).

The paper masks the trailing dims of a row by a softmax over how many stay, from a small network that reads the row's
count; here a table keeps one width, so a mask has one number. Its start is the logarithm of the count, which is what
that network reads: without a step of training the choice is the one by counts.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from emb.distill.train import Split
from emb.model.embedding_model import EmbeddingModel
from emb.recipes.recipe import TrainingRecipe
from emb.vocabulary.adaptation.gates import Gates, kept_by_gates
from emb.vocabulary.surgery import table_of
from emb.vocabulary.usage import counts_of


def kept_by_masks(
    model: EmbeddingModel,
    train: Split,
    *,
    rows: int,
    always: Collection[int],
    recipe: TrainingRecipe,
    folder: Path,
    fallback: Tensor | None = None,
) -> list[int]:
    """The ids of the `rows` rows whose masks are most open after training, ascending; all of `always` are among them.

    `fallback` `(rows, hidden)` is what a masked row is read as, zeros without it. `train` holds the vectors to stay
    near to, the model's own or a teacher's. Checkpoints lie below `folder`.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
    """
    counts = counts_of(train.rows, len(table_of(model)))
    masks = Masks(torch.from_numpy(counts), always)
    return kept_by_gates(model, masks, train, rows=rows, always=always, recipe=recipe, folder=folder, fallback=fallback)


class Masks(Gates):
    """A soft mask per row, `sigmoid(logit)`."""

    def __init__(self, counts: Tensor, always: Collection[int]) -> None:
        super().__init__(len(counts), always)
        self.logits = nn.Parameter(torch.log1p(counts.float()))

    def openness(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def scores(self) -> Tensor:
        return self.logits

    def pressure(self) -> Tensor:
        return self.openness()[~self.fixed].mean()
