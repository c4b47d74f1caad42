"""A token table of which the last rows alone are trained: the others cannot move, whatever the optimiser does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from emb.model.embedding_model import EmbeddingModel


class NewRows(nn.Module):
    """Looks up `weight` `(old, hidden)`, fixed, for ids below `old`, and `rows` `(new, hidden)` for those behind."""

    weight: Tensor

    def __init__(self, table: nn.Embedding, first: int, count: int) -> None:
        super().__init__()
        self.register_buffer("weight", table.weight.detach()[:first], persistent=False)
        self.rows = nn.Parameter(table.weight.detach()[first : first + count].clone())
        self.scale = float(getattr(table, "embed_scale", 1.0))  # Gemma's tables scale what they look up

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of `ids` `(batch, tokens)`."""
        first = len(self.weight)
        new = (ids >= first).unsqueeze(-1)
        old_rows = embedding(ids.clamp(max=first - 1), self.weight)
        new_rows = embedding((ids - first).clamp(0, len(self.rows) - 1), self.rows)
        return torch.where(new, new_rows, old_rows) * self.scale


@contextmanager
def training_new_rows(model: EmbeddingModel, first: int, count: int) -> Iterator[NewRows]:
    """Within, the table of `model` is one whose `count` rows from id `first` on alone are trained; afterwards it holds
    what they became.
    """
    table = model.encoder.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    replacement = NewRows(table, first, count)
    model.encoder.set_input_embeddings(replacement)
    try:
        yield replacement
    finally:
        with torch.no_grad():
            table.weight[first : first + count] = replacement.rows.to(table.weight.device)
        model.encoder.set_input_embeddings(table)
