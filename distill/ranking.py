"""The last step of a query encoder: its projections learn in which order the teacher finds the documents.

A projection that brings vectors near the teacher's says nothing of which errors cost places. Here a linear map behind
each exit is trained, by cached vectors alone, to give the teacher's softmax over the documents that it finds first
(KL divergence, as in arXiv 2306.11550 and RankDistil), and near vectors as before beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from emb.distill.held_out_scores import exit_vectors
from emb.distill.retention import ENOUGH, KnownItems, gains
from emb.distill.train import Training
from emb.machine import device
from emb.model.dense import is_linear, linear
from emb.model.embedding_model import EmbeddingModel
from emb.model.static import StaticEncoder
from emb.progress import note
from emb.recipes.recipe import RankingRecipe
from emb.similarity import Vectors, unit

_BATCH = 256
_CHUNK = 1024  # queries whose products with all documents are held at once


@dataclass(frozen=True)
class _Ranked:
    """The teacher's unit vectors of queries `(queries, dim)` and of documents `(documents, dim)`; of the documents that
    each query finds first, the scores and the rows `(queries, k)`.
    """

    queries: Tensor
    documents: Tensor
    scores: Tensor
    first: Tensor


def rank_projections(training: Training, search: KnownItems, recipe: RankingRecipe) -> dict[int, bool]:
    """Train a map behind each exit; it stays, inside the projection, where held-out pseudo-queries then find their
    documents better than before. Returns by exit whether it did.

    Fewer than 30 held-out pseudo-queries decide nothing, and nothing is done; nor is it to vectors whose length means
    something, behind a projection that is not linear, or to a static encoder, which real queries showed to lose by it.
    """
    student = training.student
    exits = [n for n in training.exits if is_linear(student.heads[str(n)])]
    rows_alone = isinstance(student.encoder, StaticEncoder)  # they have learned every token of the documents already
    if rows_alone or not recipe.epochs or len(search.rows) < ENOUGH or not student.spec.normalize or not exits:
        return {}
    drawn = torch.randperm(len(training.train.rows), generator=torch.Generator().manual_seed(training.recipe.seed))
    chosen = drawn[: recipe.texts].tolist()
    ranked = _ranked(training.train.targets.take(chosen), search.documents, recipe.documents)
    budget = training.recipe.tokens_per_batch
    features = exit_vectors(student, student, [training.train.rows[index] for index in chosen], exits, budget)
    held_out = exit_vectors(student, student, [training.held_out.rows[row] for row in search.rows], exits, budget)
    found = {}
    for n in exits:
        dims = sorted({pair.dim for pair in training.pairs if pair.layers == n})
        turn = fitted_map(features[n], ranked, dims, recipe, training.recipe.seed)
        before, after = (gains_at(vectors, search, dims) for vectors in (held_out[n], held_out[n] @ turn.T))
        found[n] = is_gain(before, after)
        if found[n]:
            turn_exit(student, n, torch.from_numpy(turn))
        told = "" if found[n] else ", left as it was"
        note(f"ranking at layer {n}: held-out search {before.mean():.4f} → {after.mean():.4f}{told}")
    return found


def gains_at(queries: Vectors, search: KnownItems, dims: Sequence[int]) -> Vectors:
    """Mean over `dims` of the nDCG@10 with which each query, one for each of the search's rows, finds its document."""
    documents, owners = search.field()
    found = [gains(queries[:, :dim], documents[:, :dim], search.sources, owners=owners) for dim in dims]
    return np.asarray(np.mean(found, axis=0))


def is_gain(before: Vectors, after: Vectors) -> bool:
    """Whether queries find their documents better by more than chance makes of it: one standard error of the mean."""
    gained = after - before
    return bool(gained.mean() > gained.std() / len(gained) ** 0.5)


def fitted_map(features: Vectors, ranked: _Ranked, dims: Sequence[int], recipe: RankingRecipe, seed: int) -> Vectors:
    """The map `(dim, dim)` for `features` `(queries, dim)`, which starts as the identity."""
    given = torch.from_numpy(features).to(device())
    turn = torch.eye(given.shape[1], device=given.device, requires_grad=True)
    optimizer = torch.optim.Adam([turn], lr=recipe.lr)
    drawn = torch.Generator().manual_seed(seed)
    lengths = {dim: ranked.documents[:, :dim].norm(dim=1).clamp(min=1e-12) for dim in dims}
    steps = max(1, round(recipe.epochs * len(given) / _BATCH))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = recipe.lr * (1 - step / steps)
        batch = torch.randint(len(given), (_BATCH,), generator=drawn)
        loss = _loss(given[batch] @ turn.T, ranked, batch, lengths, recipe)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()
    return turn.detach().cpu().numpy()


def _loss(
    vectors: Tensor, ranked: _Ranked, batch: Tensor, lengths: Mapping[int, Tensor], recipe: RankingRecipe
) -> Tensor:
    """KL from the teacher's softmax, at full dim, to the student's, and what the cosine lacks to 1: the mean over the
    dims, to which documents have `lengths` `(documents,)`.
    """
    goal, first = ranked.queries[batch], ranked.first[batch]
    documents, wanted = ranked.documents[first], (ranked.scores[batch] / recipe.temperature).log_softmax(-1)
    losses = []
    for dim, length in lengths.items():
        mine = normalize(vectors[:, :dim], dim=-1)
        scores = torch.einsum("qd,qkd->qk", mine, documents[..., :dim]) / length[first] / recipe.temperature
        divergence = kl_div(scores.log_softmax(-1), wanted, reduction="batchmean", log_target=True)
        away = 1 - (mine * normalize(goal[:, :dim], dim=-1)).sum(-1).mean()
        losses.append(divergence + recipe.cosine * away)
    return torch.stack(losses).mean()


def _ranked(queries: Vectors, documents: Vectors, count: int) -> _Ranked:
    goal, known = (torch.from_numpy(unit(each)).to(device()) for each in (queries, documents))
    count = min(count, len(known))
    found = [(part @ known.T).topk(count) for part in torch.split(goal, _CHUNK)]
    return _Ranked(goal, known, torch.cat([each.values for each in found]), torch.cat([each.indices for each in found]))


def turn_exit(student: EmbeddingModel, layers: int, turn: Tensor) -> None:
    """Put the map behind the exit at `layers` into its projection."""
    head = student.heads[str(layers)]
    with torch.no_grad():
        whole = head(torch.eye(student.hidden).to(next(student.parameters()))).T
        weight = turn.to(whole) @ whole
    student.heads[str(layers)] = linear(weight)
