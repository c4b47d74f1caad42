"""The LEAF loss at every (layers, dim) pair of a list, against cached teacher vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss, normalize

from emb.artifact.manifest import LayerDimPair


def pair_losses(outputs: Mapping[int, Tensor], teacher_embeddings: Tensor, pairs: Sequence[LayerDimPair], *, loss: str, unit: bool) -> dict[LayerDimPair, Tensor]:
    """Loss of each pair, a scalar each.

    `outputs` maps layers to projected vectors `(batch, teacher_dim)`, not yet normalised;
    `teacher_embeddings` is `(batch, teacher_dim)`. Each pair compares prefixes of length `dim`.
    With `unit` (the teacher gives unit vectors) the prefix is normalised again on BOTH sides, so
    that a perfect student scores 0 at every prefix.

    LEAF (arXiv 2509.12539): squared distance to the teacher's vector; the list of pairs follows
    Starbucks (arXiv 2410.13230), with the target in the teacher's truncated space.
    """
    return {pair: _loss(outputs[pair.layers][:, : pair.dim], teacher_embeddings[:, : pair.dim], loss, unit) for pair in pairs}


def _loss(student: Tensor, teacher: Tensor, loss: str, unit: bool) -> Tensor:
    if loss == "cosine":
        return (1 - cosine_similarity(student, teacher)).mean()
    if unit:
        student, teacher = normalize(student, dim=-1), normalize(teacher, dim=-1)
    return mse_loss(student, teacher, reduction="sum") / len(student)
