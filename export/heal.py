"""Healing: a slice trained briefly under the rounding that its files will make, against the teacher's vectors.

The floats that come out are saved, exported and quantised as those of any other slice. Files of several precisions
come from one set of weights, so the steps of training take turns between them (Yu et al. 2021, Any-Precision Deep
Neural Networks, arXiv 1911.07346).
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity

from emb.artifact.lineage import DataRecord, HealingRecord
from emb.artifact.manifest import LayerDimPair, PairScores
from emb.distill.past_run import PastRun
from emb.distill.train import Split, Training
from emb.files import disk_errors
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.quantize.weights.fake import PRECISIONS, Dial, fake_quantised, signs
from emb.recipes.recipe import TrainingRecipe

_NEVER = 10**9


@dataclass(frozen=True)
class Aim:
    """What a slice is healed for: the weight types of its files, and whether one gives binary vectors.

    With binary vectors alone the weights stay floats.
    """

    weights: tuple[str, ...] = ()
    binary: bool = False


@dataclass(frozen=True)
class Healed:
    """A slice after training, and what the manifest says of it."""

    model: EmbeddingModel
    held_out: Split
    record: HealingRecord


def healing_recipe(past: PastRun, seconds: float) -> TrainingRecipe:
    """The distillation's own training, shorter and gentler: the slice is nearly where it should be."""
    own = past.recipe.training
    return TrainingRecipe(
        epochs=1000,
        lr=5e-5,
        lr_end=1e-6,
        warmup_steps=20,
        tokens_per_batch=own.tokens_per_batch,
        objective=own.objective,
        train_token_embeddings=False,
        precision=own.precision,
        seed=own.seed,
        max_time=seconds,
        evaluate_every=_NEVER,
    )


def heal(
    sliced: EmbeddingModel, pair: LayerDimPair, past: PastRun, aim: Aim, recipe: TrainingRecipe, place: Path
) -> Healed:
    """Train a copy of `sliced` by `recipe` on the texts of its distillation; `sliced` itself stays as it is.

    Checkpoints go below `place` and stay there until `forget`: interrupted, or stopped by anything else, the same
    call goes on to the weights it would have had.

    Raises:
        KeyboardInterrupt: Ctrl-C, after a checkpoint.
    """
    train, held_out = past.splits(sliced)
    # A copy: training patches what it trains, and slices of one student share their weights.
    student = copy.deepcopy(sliced)
    identity = _identity(sliced, pair, past, aim, recipe)
    folder = place.with_name(f"{place.name}-{identity[:12]}")  # under other settings another one: nothing to refuse
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with fake_quantised(student) as dial:
        training = _Healing(student, train, held_out, pair, recipe, folder, identity, dial, aim)
        note(
            f"healing {pair} for {', '.join([*aim.weights, *(['binary vectors'] if aim.binary else [])])} on"
            f" {len(past.train):,} texts"
        )
        training.run()
    healed = copy.deepcopy(sliced)
    healed.load_state_dict({name: value.cpu() for name, value in student.state_dict().items()})
    return Healed(healed, held_out, _record(training, past, aim, recipe))


def forget(place: Path) -> None:
    """Remove the checkpoints of finished healings at `place`."""
    for folder in place.parent.iterdir():
        if folder.name.startswith(f"{place.name}-"):
            shutil.rmtree(folder)


class _Healing(Training):
    def __init__(
        self,
        student: EmbeddingModel,
        train: Split,
        held_out: Split,
        pair: LayerDimPair,
        recipe: TrainingRecipe,
        folder: Path,
        identity: str,
        dial: Dial,
        aim: Aim,
    ) -> None:
        super().__init__(student, train, held_out, [pair], recipe, folder, identity)
        self.dial, self.binary = dial, aim.binary
        self.turns = [PRECISIONS[name] for name in aim.weights]

    def evaluate(self) -> list[PairScores]:
        """Nothing: what counts are the files, and they are measured afterwards."""
        return []

    def mend(self) -> str:
        return "leave out --heal; if the student itself is at fault, `emb validate` shows it"

    def _train_step(self, batch: np.ndarray[Any, Any], rate: float) -> float:
        # By the step alone, for the sake of resuming.
        self.dial.precision = self.turns[self.step % len(self.turns)] if self.turns else None
        return super()._train_step(batch, rate)

    def loss(self, outputs: Mapping[int, Tensor], targets: Tensor) -> Tensor:
        loss = super().loss(outputs, targets)
        return loss + self._of_bits(outputs, targets) if self.binary else loss

    def _of_bits(self, outputs: Mapping[int, Tensor], targets: Tensor) -> Tensor:
        """Distance of the ±1 vectors from the teacher's own vectors."""
        [pair] = self.pairs
        return (1 - cosine_similarity(signs(outputs[pair.layers]), targets[:, : pair.dim])).mean()


def _identity(sliced: EmbeddingModel, pair: LayerDimPair, past: PastRun, aim: Aim, recipe: TrainingRecipe) -> str:
    """Everything the healed weights depend on."""
    state = hashlib.blake2b(digest_size=16)
    for name, value in sorted(sliced.state_dict().items()):
        state.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    parts = [str(pair), aim.weights, aim.binary, recipe.identity(), past.corpus.digest, past.fingerprint]
    state.update(json.dumps(parts, sort_keys=True).encode())
    return state.hexdigest()


def _record(training: _Healing, past: PastRun, aim: Aim, recipe: TrainingRecipe) -> HealingRecord:
    data = DataRecord(past.corpus.digest, len(past.train), len(past.held_out))
    return HealingRecord(
        list(aim.weights),
        aim.binary,
        training.step,
        training.texts,
        round(training.spent, 1),
        data,
        recipe.model_dump(mode="json"),
    )
