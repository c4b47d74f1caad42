"""The token table trained as a product of two factors, multiplied out at the end (MLET).

Training with Multi-Layer Embeddings for Model Reduction (Ghaemmaghami et al. 2020, arXiv 2006.05623) and its
successor (Deng et al. 2023, arXiv 2309.15881): a row moves with the rows around it, because the second factor is common
to all, and the wider the inner dim is the more so. Rare rows gain from that. What is saved has the size of the old
table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from emb.errors import UsageError
from emb.model.embedding_model import EmbeddingModel
from emb.vocabulary.surgery import embedding_of


@contextmanager
def factorised(model: EmbeddingModel, inner: int, seed: int = 0) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Until the end of the block, `model` reads its rows from `A @ B`: A `(rows, inner)`, B `(inner, hidden)`.

    The product starts as the old table and becomes the new one. A is the weight of the table while it lasts, so that
    `training.train_token_embeddings` says whether it is trained; B is a parameter beside it.

    Raises:
        UsageError: `inner` is less than the table is wide, so that the product could not be the old table.
    """
    table = embedding_of(model)
    width = table.weight.shape[1]
    if inner < width:
        raise UsageError(f"an inner dim of {inner} cannot hold rows of {width}", f"choose {width} or more")
    factors = _factors(table.weight.detach(), inner, seed)
    table.weight, mixing = factors
    table.register_parameter("mixing", mixing)
    handle = table.register_forward_hook(lambda module, inputs, rows: rows @ module.mixing)
    try:
        yield factors
    finally:
        handle.remove()
        del table.mixing
        table.weight = nn.Parameter((factors[0] @ factors[1]).detach())


def _factors(rows: Tensor, inner: int, seed: int) -> tuple[nn.Parameter, nn.Parameter]:
    """[rows, 0] and [I; random]: the random part has rows of length 1 and says nothing until A has learned some."""
    hidden = rows.shape[1]
    drawn = torch.randn(inner - hidden, hidden, generator=torch.Generator().manual_seed(seed)) / hidden**0.5
    wide = nn.functional.pad(rows, (0, inner - hidden))
    return nn.Parameter(wide), nn.Parameter(torch.cat([torch.eye(hidden), drawn]).to(rows))
