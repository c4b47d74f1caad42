"""The closed-form start of a student: one ridge regression per exit into the teacher's space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from emb.distill.train import Split
from emb.machine import resolve_dtype
from emb.model.batches import over_batches
from emb.model.dense import linear
from emb.model.embedding_model import EmbeddingModel
from emb.progress import bar
from emb.recipes.recipe import Recipe
from emb.teachers.cache import TeacherEmbeddings
from emb.tokens import Rows


def start_projections(
    student: EmbeddingModel, train: Split, exits: Sequence[int], recipe: Recipe, *, texts: int | None = None
) -> None:
    """Fit `exits` as the recipe says, to as many texts as it says, or to `texts` of them, drawn by its seed."""
    drawn = torch.randperm(len(train.rows), generator=torch.Generator().manual_seed(recipe.training.seed))
    chosen = drawn[: texts or recipe.projection.texts].tolist()
    fit_projections(
        student,
        [train.rows[index] for index in chosen],
        TeacherEmbeddings(train.targets.shards, train.targets.places[chosen]),
        exits,
        ridge=recipe.projection.ridge,
        tokens_per_batch=recipe.training.tokens_per_batch,
        dtype=resolve_dtype(recipe.training.precision),
    )


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
