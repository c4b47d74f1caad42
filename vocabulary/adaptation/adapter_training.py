"""Training an adapter: the distillation loop, on a base that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emb.artifact.manifest import LayerDimPair
from emb.distill.train import Split, Training
from emb.errors import TrainingError, UsageError
from emb.model.embedding_model import EmbeddingModel, layer_stack
from emb.recipes.recipe import TrainingRecipe
from emb.similarity import Vectors
from emb.tokens import Indices
from emb.vocabulary.adaptation.lora import adapter_tensors, is_row
from emb.vocabulary.adaptation.quantized_base import evaluation_copy, keep_layout, quantized_layers, refuse_rewritten


class AdapterTraining(Training):
    """Distillation that moves the adapter of `student` and nothing else; its encoder may be in 4 bits.

    With 4 bits the optimiser is bitsandbytes' AdamW with states in 8 bits, on CUDA paged as well: its states move to
    the machine's memory where the GPU's is short. On CPUs there is no second memory to page to. A base in floats gets
    torch's AdamW as everywhere. `recompute` computes the inside of each layer again in the backward pass instead of
    keeping it.
    """

    def __init__(
        self,
        student: EmbeddingModel,
        train: Split,
        held_out: Split,
        pairs: Sequence[LayerDimPair],
        recipe: TrainingRecipe,
        folder: Path,
        identity: str,
        *,
        recompute: bool,
    ) -> None:
        self.four_bits, self.recompute, self.unproven = bool(quantized_layers(student)), recompute, True
        super().__init__(student, train, held_out, pairs, recipe, folder, identity)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The low-rank updates, and the new rows, which no weight decay draws to nothing."""
        self._still()
        tensors = adapter_tensors(self.student.encoder)
        updates = [each for name, each in tensors.items() if not is_row(name)]
        rows = [each for name, each in tensors.items() if is_row(name)]
        groups: list[dict[str, Any]] = [{"params": updates, "scale": 1.0}]
        return groups + ([{"params": rows, "scale": 1.0, "weight_decay": 0.0}] if rows else [])

    def optimizer_of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if not self.four_bits:
            return super().optimizer_of(groups)
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

        kind = PagedAdamW8bit if torch.cuda.is_available() else AdamW8bit
        optimizer: torch.optim.Optimizer = kind(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)
        return optimizer

    def held_out_vectors(self) -> dict[int, Vectors]:
        """Of a copy: evaluating 4-bit layers may rewrite them, and this one is trained on."""
        trained = self.student
        self.student = evaluation_copy(trained) if self.four_bits else trained
        try:
            return super().held_out_vectors()
        finally:
            self.student = trained
            refuse_rewritten(trained)

    def mend(self) -> str:
        return f"lower the learning rate (it is {self.recipe.lr:g}), or try precision fp32"

    def _train_step(self, batch: Indices, rate: float) -> float:
        loss = super()._train_step(batch, rate)
        # The second factor of an update starts at zero and hides the first one's gradient until it has moved once.
        if self.unproven and self.step >= 1:
            refuse_rewritten(self.student)
            self.refuse_dead(batch)
            self.unproven = False
        return loss

    def refuse_dead(self, batch: Indices) -> None:
        """Look whether the step just made taught every tensor of the adapter something.

        Raises:
            TrainingError: a tensor got no gradient, or zeros; rows get none where no text of `batch` has them.
        """
        met = self._meets_new_rows(batch)
        for name, tensor in adapter_tensors(self.student.encoder).items():
            if _is_zero(tensor.grad) and (met or not is_row(name)):
                raise TrainingError(
                    f"{name}: no gradient reaches this tensor of the adapter, so it would stay as it is",
                    "train without QLoRA; if that fails as well, this architecture is not supported",
                )

    def _meets_new_rows(self, batch: Indices) -> bool:
        places = [buffer for name, buffer in self.student.encoder.named_buffers() if name.endswith(".places")]
        ids = {int(each) for index in batch for each in self.train.rows[index]}
        return bool(places) and bool((places[0][sorted(ids)] >= 0).any())

    def _still(self) -> None:
        """Dropout off everywhere, as for every student; 4-bit layers and those that are recomputed in train mode."""
        self.student.eval()
        keep_layout(self.student)
        if self.recompute:
            _recompute(self.student)
        if not torch.cuda.is_available():
            self.student.encoder.set_attn_implementation("eager")  # as in `freeze`


def _is_zero(gradient: Tensor | None) -> bool:
    return gradient is None or not bool(gradient.any())


def _recompute(model: EmbeddingModel) -> None:
    """Raises:
    UsageError: the architecture cannot do that.
    """
    encoder = model.encoder
    layers = list(layer_stack(encoder)[2])
    if not encoder.supports_gradient_checkpointing or not all(
        hasattr(each, "gradient_checkpointing") for each in layers
    ):
        raise UsageError(f"{type(encoder).__name__} cannot recompute its layers", "leave out recompute")
    encoder.config.use_cache = False
    enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True  # of itself, not of what is inside: transformers recomputes in train mode only
