"""Which rows stay, by what each is worth to the vectors of texts: no training, one backward pass per text and probe.

What removing a row costs is, to second order and from the model's own vectors, the squared length of J·d: d leads from
the row to its fallback, and J from there to the text's vector. A probe u of random signs finds it without J: the mean
of (uᵀ·J·d)² is that length, and uᵀ·J is one backward pass. It is the Gauss-Newton form of the saliencies of Optimal
Brain Damage (LeCun et al. 1989).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from emb.model.batches import tensors
from emb.model.embedding_model import EmbeddingModel
from emb.tokens import Rows, token_budget_batches
from emb.vocabulary.choice import check_wanted, highest, table_of


def kept_by_influence(
    model: EmbeddingModel,
    texts: Rows,
    *,
    rows: int,
    always: Collection[int],
    fallback: Tensor | None = None,
    probes: int = 1,
    tokens_per_batch: int = 2048,
    seed: int = 0,
) -> list[int]:
    """The ids of the `rows` rows whose loss would move the vectors of `texts` most, ascending, `always` among them.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
    """
    check_wanted(rows, len(table_of(model).weight), always)
    worth = influence(model, texts, fallback, probes=probes, tokens_per_batch=tokens_per_batch, seed=seed)
    return highest(worth, rows, always)


def influence(
    model: EmbeddingModel,
    texts: Rows,
    fallback: Tensor | None = None,
    *,
    probes: int = 1,
    tokens_per_batch: int = 2048,
    seed: int = 0,
) -> Tensor:
    """How far the vectors of `texts` move without each row, squared and summed over the texts: `(rows,)`.

    A row is replaced by its `fallback` `(rows, hidden)`, or by zeros. More `probes` a text give less noise.
    """
    table = table_of(model).weight.detach()
    steps = (torch.zeros_like(table) if fallback is None else fallback.to(table)) - table
    random = torch.Generator().manual_seed(seed)
    padder, found = model.tokenizer(), torch.zeros(len(table), dtype=torch.float64, device=table.device)
    for batch in token_budget_batches([len(row) for row in texts], tokens_per_batch):
        ids, mask = tensors(padder.pad([texts[index] for index in batch]), model)
        own, vectors = _traced(model, ids, mask)
        for _ in range(probes):
            signs = torch.randint(0, 2, vectors.shape, generator=random).to(vectors) * 2 - 1
            (slope,) = torch.autograd.grad((vectors * signs).sum(), own, retain_graph=True)
            found += _squared(ids, (slope * steps[ids]).sum(-1), len(table)) / probes
    return found.cpu()


def _traced(model: EmbeddingModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that `ids` read `(batch, tokens, hidden)`, and the text vectors `(batch, dim)` that follow from them."""
    read: list[Tensor] = []

    def keep(table: nn.Module, inputs: tuple[Tensor, ...], own: Tensor) -> Tensor:
        read.append(own.detach().requires_grad_())
        return read[-1]

    handle = table_of(model).register_forward_hook(keep)
    try:
        vectors = model.embed(ids, mask)
    finally:
        handle.remove()
    return read[0], vectors


def _squared(ids: Tensor, moves: Tensor, rows: int) -> Tensor:
    """By id, the squares of the `moves` `(batch, tokens)` of a text, those of one token in one text taken together."""
    text = torch.arange(len(ids), device=ids.device).unsqueeze(1) * rows
    pairs, place = torch.unique(ids + text, return_inverse=True)
    zeros = torch.zeros(max(len(pairs), rows), dtype=torch.float64, device=ids.device)
    moved = zeros[: len(pairs)].index_add(0, place.flatten(), moves.flatten().double())
    return zeros[:rows].index_add(0, pairs % rows, moved.square())
