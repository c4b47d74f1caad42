"""Tokenised texts through a model, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from emb.similarity import Vectors
from emb.tokens import Batch, Indices, Rows, TextTokenizer, token_budget_batches

Result = TypeVar("Result")


def tensors(batch: Batch, module: nn.Module) -> tuple[Tensor, Tensor]:
    """Ids and mask `(batch, tokens)` where the module lies."""
    device = next(module.parameters()).device
    ids, mask = (torch.from_numpy(array).to(device) for array in batch)
    return ids, mask


def over_batches(
    compute: Callable[[Tensor, Tensor], Result],
    module: nn.Module,
    padder: TextTokenizer,
    rows: Rows,
    *,
    tokens_per_batch: int,
    side: str = "right",
    done: Callable[[int], object] = lambda tokens: None,
) -> Iterator[tuple[Indices, Result]]:
    """What `compute` gives for ids and mask of each token-budget batch of `rows`, longest first, with their indices.

    `module` says where the tensors belong; `done` is told how many tokens were computed. Nothing is recorded for a
    backward pass.
    """
    for batch in token_budget_batches([len(row) for row in rows], tokens_per_batch):
        with torch.inference_mode():
            result = compute(*tensors(padder.pad([rows[index] for index in batch], side), module))
        done(sum(len(rows[index]) for index in batch))
        yield batch, result


def gathered(found: Iterator[tuple[Indices, dict[int, Tensor]]], texts: int) -> dict[int, Vectors]:
    """The vectors of all batches, in the order of the texts, by exit: `(texts, width)` float32."""
    outputs: dict[int, Vectors] = {}
    for batch, vectors in found:
        for n, each in vectors.items():
            outputs.setdefault(n, np.zeros((texts, each.shape[1]), np.float32))[batch] = each.float().cpu().numpy()
    return outputs
