"""The closed-form start of a student: one ridge regression per exit into the teacher's space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from emb.model.batches import over_batches
from emb.model.dense import linear
from emb.model.embedding_model import EmbeddingModel
from emb.progress import bar
from emb.teachers.cache import TeacherEmbeddings
from emb.tokens import Rows


def fit_projections(
    student: EmbeddingModel,
    rows: Rows,
    targets: TeacherEmbeddings,
    exits: Sequence[int],
    *,
    ridge: float,
    tokens_per_batch: int,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Give `student` at `exits` the best linear maps from its frozen pooled states to the targets.

    `rows` are the token ids of the texts whose vectors are `targets`. Solves (XᵀX + λI) W = XᵀY per exit, with λ =
    `ridge` × the mean of the diagonal; the sums are accumulated batch by batch, so memory does not grow with the
    corpus.
    """
    grams = {n: torch.zeros(student.hidden, student.hidden, dtype=torch.float64) for n in exits}
    cross = {n: torch.zeros(student.hidden, targets.dim, dtype=torch.float64) for n in exits}
    device = next(student.parameters()).device
    half = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    compute = partial(student.pooled, exits=exits)
    with half, bar("closed-form projections (texts)", len(rows)) as advance:
        for batch, pooled in over_batches(
            compute, student, student.tokenizer(), rows, tokens_per_batch=tokens_per_batch
        ):
            goal = torch.from_numpy(targets.take(batch)).double()
            for n, features in pooled.items():
                states = features.double().cpu()
                grams[n] += states.T @ states
                cross[n] += states.T @ goal
            advance(len(batch))
    fitted = {n: linear(solve_ridge(grams[n], cross[n], ridge)) for n in exits}
    student.heads.update({str(n): head.to(device) for n, head in fitted.items()})


def solve_ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """The weight `(teacher_dim, hidden)` float32 of the ridge solution."""
    penalty = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution: Tensor = torch.linalg.solve(gram + penalty, cross)
    return solution.T.float().contiguous().clone()
