"""The other half of a query encoder's loss: the order in which the teacher finds the documents.

Nearness to the teacher's vector says nothing of which errors cost places. So the student also learns the teacher's
softmax over the documents that it finds first, by the KL divergence (as in arXiv 2306.11550 and RankDistil): what tells
these documents apart counts, what they have in common does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from emb.artifact.manifest import LayerDimPair
from emb.machine import device
from emb.recipes.recipe import RankingRecipe
from emb.similarity import Vectors

_MOST = 50_000  # documents that a batch is compared with; of more, so many are drawn
_LEAST = 1e-12  # a length


@dataclass(frozen=True)
class DocumentOrder:
    """The teacher's vectors of documents, `(documents, dim)` and of length 1, and how their order is learned."""

    documents: Tensor
    recipe: RankingRecipe
    lengths: dict[int, Tensor] = field(default_factory=dict)  # of the documents cut to as many dims, once measured

    @classmethod
    def of(cls, vectors: Vectors, recipe: RankingRecipe, seed: int) -> DocumentOrder:
        """From vectors `(documents, dim)` of any length; beyond 50,000 documents as many are drawn by `seed`."""
        drawn = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:_MOST]
        return cls(normalize(torch.from_numpy(vectors)[drawn].to(device()), dim=-1), recipe)

    def loss(self, outputs: Mapping[int, Tensor], targets: Tensor, pairs: Sequence[LayerDimPair]) -> Tensor:
        """The mean over the pairs, a scalar, times the recipe's weight.

        `outputs` maps layers to the student's vectors `(batch, dim)`, `targets` are the teacher's. The teacher searches
        at its full dim whatever the pair's is: an encoder at 128 dims is asked for what 768 would find.
        """
        scores, first = (normalize(targets, dim=-1) @ self.documents.T).topk(self._count)
        wanted = (scores / self.recipe.temperature).log_softmax(-1)
        found = self.documents[first]
        lengths = {dim: self._lengths(dim)[first] for dim in {pair.dim for pair in pairs}}
        apart = [
            self._apart(outputs[pair.layers][:, : pair.dim], found[..., : pair.dim], lengths[pair.dim], wanted)
            for pair in pairs
        ]
        return self.recipe.weight * torch.stack(apart).mean()

    @property
    def _count(self) -> int:
        return min(self.recipe.documents, len(self.documents))

    def _lengths(self, dim: int) -> Tensor:
        """`(documents,)`, never 0: a cut may leave nothing of a document, which then scores 0."""
        if dim not in self.lengths:
            self.lengths[dim] = self.documents[:, :dim].norm(dim=-1).clamp_min(_LEAST)
        return self.lengths[dim]

    def _apart(self, queries: Tensor, found: Tensor, lengths: Tensor, wanted: Tensor) -> Tensor:
        scores = torch.einsum("qd,qkd->qk", normalize(queries, dim=-1), found) / lengths / self.recipe.temperature
        return kl_div(scores.log_softmax(-1), wanted, reduction="batchmean", log_target=True)
