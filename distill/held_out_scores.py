"""Early signals: how close the student is on held-out texts, at every pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from emb.artifact.manifest import LayerDimPair, PairScores
from emb.model.batches import gathered, over_batches
from emb.model.embedding_model import EmbeddingModel
from emb.similarity import Vectors, cosines, neighbour_overlap
from emb.tokens import Rows


def held_out_scores(
    student: EmbeddingModel,
    rows: Rows,
    targets: np.ndarray[Any, Any],
    pairs: Sequence[LayerDimPair],
    *,
    tokens_per_batch: int,
) -> list[PairScores]:
    """Mean cosine to the teacher and neighbour overlap@10, by the model's own measure, of each pair.

    `rows` are token ids of the held-out texts and `targets` `(texts, teacher_dim)` their vectors.
    """
    outputs = exit_vectors(student, student, rows, sorted({pair.layers for pair in pairs}), tokens_per_batch)
    return scores_of(outputs, targets, pairs, student.spec.similarity)


def scores_of(
    outputs: Mapping[int, Vectors], targets: Vectors, pairs: Sequence[LayerDimPair], measure: str
) -> list[PairScores]:
    """The same of vectors that are there: `outputs` by layers, of all dims."""
    return [_score(pair, outputs[pair.layers][:, : pair.dim], targets[:, : pair.dim], measure) for pair in pairs]


def _score(
    pair: LayerDimPair, student: np.ndarray[Any, Any], teacher: np.ndarray[Any, Any], measure: str
) -> PairScores:
    cosine, overlap = cosines(student, teacher).mean(), neighbour_overlap(student, teacher, 10, measure=measure)
    return PairScores(pair.layers, pair.dim, float(cosine), overlap)


def exit_vectors(
    student: EmbeddingModel,
    compute: Callable[..., dict[int, Tensor]],
    rows: Rows,
    exits: Sequence[int],
    tokens_per_batch: int,
) -> dict[int, np.ndarray[Any, Any]]:
    """What `compute` (the student, or its `pooled`) gives for each text at `exits`: `(texts, width)` float32."""
    found = over_batches(
        partial(compute, exits=exits), student, student.tokenizer(), rows, tokens_per_batch=tokens_per_batch
    )
    return gathered(found, len(rows))
