"""What each (layers, dim) pair of a student costs: its numbers, and the time of a query."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from emb.artifact.manifest import LayerDimPair, PairScores
from emb.model.embedding_model import EmbeddingModel
from emb.model.slice import slice_model
from emb.tokens import Rows

_QUERIES = 30


def with_costs(scores: Sequence[PairScores], student: EmbeddingModel, rows: Rows) -> list[PairScores]:
    """`scores` with the parameters of each pair, and the milliseconds that torch takes here for one query.

    `rows` are token ids of queries. The time is the median over thirty of them, one by one, and the same for all dims
    of an exit: of a query, projecting takes next to nothing.
    """
    widest = {
        layers: max(each.dim for each in scores if each.layers == layers) for layers in {s.layers for s in scores}
    }
    spent = {
        layers: _milliseconds(slice_model(student, LayerDimPair(layers, dim)), rows) for layers, dim in widest.items()
    }
    return [
        replace(each, parameters=_parameters(student, each.pair), milliseconds=spent[each.layers]) for each in scores
    ]


def _parameters(student: EmbeddingModel, pair: LayerDimPair) -> int:
    return sum(parameter.numel() for parameter in slice_model(student, pair).parameters())


@torch.inference_mode()
def _milliseconds(model: EmbeddingModel, rows: Rows) -> float:
    device, found = next(model.parameters()).device, []
    for row in [rows[0], *rows[:_QUERIES]]:  # the first is slower than any after it
        ids = torch.as_tensor(row, dtype=torch.long, device=device)[None]
        began = time.perf_counter()
        model.embed(ids, torch.ones_like(ids)).cpu()  # a GPU has only begun when the call returns
        found.append(time.perf_counter() - began)
    return 1000 * statistics.median(found[1:])
