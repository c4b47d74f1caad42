"""What follows training: weights averaged with those it began from, and flatter projections.

Both mend what fitting to a teacher costs. Training on one corpus forgets others; and a fit to cosine or squared
distance shrinks what it cannot predict, which is often what tells near texts apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from emb.artifact.manifest import LayerDimPair
from emb.distill.held_out_scores import exit_vectors
from emb.model.embedding_model import EmbeddingModel
from emb.similarity import neighbour_overlap

ENOUGH = 100  # held-out texts; the neighbours of fewer say little
Array = np.ndarray[Any, np.dtype[Any]]


def average(student: EmbeddingModel, start: Mapping[str, Tensor], share: float) -> None:
    """Leave `student` with `share` (0 to 1) of the way that training took it from `start`.

    Interpolation keeps more of what the start knew about other texts than it costs on the corpus (Wortsman et al.
    2022, WiSE-FT, arXiv 2109.01903, eq. 1).
    """
    with torch.no_grad():
        trained = dict(student.named_parameters())
        for name, before in start.items():
            trained[name].copy_(torch.lerp(before.to(trained[name]), trained[name], share))


def flatten_projections(
    student: EmbeddingModel,
    rows: Sequence[Array],
    targets: Array,
    pairs: Sequence[LayerDimPair],
    powers: Sequence[float],
    *,
    tokens_per_batch: int,
) -> dict[int, float]:
    """Raise the singular values of each projection to one of `powers`; return the power chosen per exit.

    A projection that minimises an error gives the mean of the teacher's vectors that may belong to a text: whatever
    it cannot tell comes out small, and near texts nearer. Powers below 1 give those directions back their part.
    Chosen is the power under which held-out texts `rows`, encoded by the student, find most of the neighbours that
    the teacher's own vectors `targets` `(texts, teacher_dim)` find among those of the others, at the widest of the
    exit's `pairs`; fewer than 100 texts decide nothing, and projections stay as they are. A single power is taken
    without asking. With power 0 a student finds among its own vectors what it found without a projection.
    """
    exits = [n for n in sorted({pair.layers for pair in pairs}) if isinstance(student.heads[str(n)], nn.Linear)]
    chosen = dict.fromkeys(exits, 1.0)
    heads = {n: cast(nn.Linear, student.heads[str(n)]) for n in exits}
    if len(set(powers)) == 1:
        for head in heads.values():
            _put(head, flattened(_weight(head), powers[0]))
        return dict.fromkeys(exits, float(powers[0]))
    if not exits or len(rows) < ENOUGH:
        return chosen
    for n, states in exit_vectors(student, student.pooled, rows, exits, tokens_per_batch).items():
        candidates = {power: flattened(_weight(heads[n]), power) for power in powers}
        dim = max(pair.dim for pair in pairs if pair.layers == n)
        goal = targets[:, :dim]
        measure = student.spec.similarity
        found = {
            power: neighbour_overlap((states @ each)[:, :dim], goal, index=goal, measure=measure)
            for power, each in candidates.items()
        }
        chosen[n] = max(found, key=lambda power: found[power])
        _put(heads[n], candidates[chosen[n]])
    return chosen


def _weight(head: nn.Linear) -> Array:
    return np.asarray(head.weight.detach().double().cpu().numpy().T)


def _put(head: nn.Linear, weight: Array) -> None:
    head.weight.data.copy_(torch.from_numpy(weight.T))


def flattened(weight: Array, power: float) -> Array:
    """`weight` with its singular values raised to `power` and its Frobenius norm kept."""
    if power == 1:
        return weight  # to the bit
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    raised = values**power
    return np.asarray((left * (raised * np.linalg.norm(values) / max(np.linalg.norm(raised), 1e-30))) @ right)
