"""Distilling: the loop's task of bringing a student near cached teacher vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emb.artifact.manifest import LayerDimPair, PairScores
from emb.distill.document_order import DocumentOrder
from emb.distill.held_out_scores import exit_vectors, scores_of
from emb.distill.loop import Loop
from emb.distill.losses import objective_of, pair_losses
from emb.model.batches import tensors
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.recipes.recipe import TrainingRecipe
from emb.similarity import Vectors
from emb.teachers.cache import TeacherEmbeddings
from emb.tokens import Indices


@dataclass(frozen=True)
class Split:
    """Token ids of texts and the teacher's vectors for them."""

    rows: Sequence[np.ndarray[Any, Any]]
    targets: TeacherEmbeddings


class Training(Loop):
    """Distillation as a loop: cached targets in, a student out that is near them at every (layers, dim) pair."""

    def __init__(
        self,
        student: EmbeddingModel,
        train: Split,
        held_out: Split,
        pairs: Sequence[LayerDimPair],
        recipe: TrainingRecipe,
        folder: Path,
        identity: str,
        order: DocumentOrder | None = None,
    ) -> None:
        self.student, self.train, self.held_out, self.pairs, self.order = student, train, held_out, pairs, order
        self.exits = sorted({pair.layers for pair in pairs})
        self.objective = objective_of(recipe.objective or [{"cosine": 1.0}])
        self.padder = student.tokenizer()
        self.held_targets = held_out.targets.take(range(len(held_out.targets)))
        super().__init__(student, [len(row) for row in train.rows], recipe, folder, identity)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's, fixed tables left out."""
        freeze(self.student, bool(self.recipe.train_token_embeddings))
        return parameter_groups(self.student)

    def batch_loss(self, batch: Indices) -> Tensor:
        """The objective, from the student's own vectors of the texts of a batch."""
        ids, mask = tensors(self.padder.pad([self.train.rows[index] for index in batch]), self.student)
        targets = torch.from_numpy(self.train.targets.take(batch)).to(ids.device)
        outputs = {n: vectors.float() for n, vectors in self.model(ids, mask, self.exits).items()}
        return self.loss(outputs, targets)

    def loss(self, outputs: Mapping[int, Tensor], targets: Tensor) -> Tensor:
        """The mean over the pairs, from vectors by layers `(batch, teacher_dim)` that are not yet normalised; and what
        they lack of the documents' order, if that is learned.
        """
        losses = pair_losses(outputs, targets, self.pairs, objective=self.objective, unit=self.student.spec.normalize)
        near = torch.stack(list(losses.values())).mean()
        return near if self.order is None else near + self.order.loss(outputs, targets, self.pairs)

    def mend(self) -> str:
        """What helps where training diverges."""
        return (
            f"lower the learning rate: --set training.lr={self.recipe.lr / 4:g} (it is {self.recipe.lr:g}), or try"
            " training.precision=fp32, and start again with --overwrite"
        )

    def evaluate(self) -> list[PairScores]:
        """Held-out scores of each pair, which are logged and told as well."""
        return self.scored(self.held_out_vectors())

    def held_out_vectors(self) -> dict[int, Vectors]:
        """The student's vectors of the held-out texts `(texts, teacher_dim)`, by layers."""
        return exit_vectors(self.student, self.student, self.held_out.rows, self.exits, self.recipe.tokens_per_batch)

    def scored(self, outputs: Mapping[int, Vectors]) -> list[PairScores]:
        """The scores of each pair with these held-out vectors, logged and told."""
        scores = scores_of(outputs, self.held_targets, self.pairs, self.student.spec.similarity)
        self._log(
            step=self.step,
            **{key: {str(each.pair): getattr(each, key) for each in scores} for key in ("cosine", "overlap")},
        )
        best = scores[-1]
        note(
            f"step {self.step:,}: held-out cosine {best.cosine:.4f}, neighbour overlap@10 {best.overlap:.3f} at"
            f" {best.pair}"
        )
        return scores


def freeze(student: EmbeddingModel, train_token_embeddings: bool) -> None:
    """Switch dropout off (the target is deterministic) and fix the token table unless it is trained."""
    student.eval()
    student.requires_grad_(True)
    student.encoder.get_input_embeddings().weight.requires_grad_(train_token_embeddings)
    if not torch.cuda.is_available():
        # On CPUs the backward pass of torch's fused attention takes half of a step; the plain one a tenth.
        student.encoder.set_attn_implementation("eager")


def parameter_groups(student: EmbeddingModel) -> list[dict[str, Any]]:
    """The trained parameters, each projection with the factor by which its learning rate is scaled.

    Adam moves every weight by about the learning rate whatever its size. A closed-form projection onto unit vectors
    is ten times smaller than an ordinary layer's weights (about 1/√hidden), so its rate is scaled by the ratio. The
    gain measured so far is small (docs/log.md).
    """
    encoder = [parameter for parameter in student.encoder.parameters() if parameter.requires_grad]
    heads = [
        (head, float(head.detach().square().mean().sqrt()) * student.hidden**0.5) for head in student.heads.parameters()
    ]
    return [
        {"params": encoder, "scale": 1.0},
        *({"params": [head], "scale": min(1.0, max(scale, 0.01))} for head, scale in heads),
    ]
