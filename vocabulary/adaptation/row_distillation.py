"""Row distillation: only the rows of new tokens are trained, so that texts read with them give the vectors they gave
without (as Token Distillation does it with hidden states, arXiv 2505.20133).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from emb.artifact.manifest import LayerDimPair, PairScores
from emb.distill.train import Split, Training, freeze
from emb.files import disk_errors
from emb.model.embedding_model import EmbeddingModel
from emb.recipes.recipe import TrainingRecipe
from emb.vocabulary.new_rows import NewRows, training_new_rows

ROW_TRAINING = TrainingRecipe(
    epochs=3,
    lr=1e-3,
    lr_end=1e-5,
    warmup_steps=10,
    tokens_per_batch=1024,
    weight_decay=0.0,
    precision="fp32",  # a row's gradient is small beside the vectors of a whole text
    evaluate_every=10**9,
)


class _RowTraining(Training):
    rows: NewRows

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The new rows alone."""
        freeze(self.student, False)
        self.student.requires_grad_(False)
        table = self.student.encoder.get_input_embeddings()
        assert isinstance(table, NewRows)
        return [{"params": [table.rows.requires_grad_(True)], "scale": 1.0}]

    def mend(self) -> str:
        return "report it: rows alone should not diverge"


def distil_rows(
    model: EmbeddingModel,
    new_ids: range,
    train: Split,
    held_out: Split,
    pairs: Sequence[LayerDimPair],
    recipe: TrainingRecipe,
    place: Path,
) -> list[PairScores]:
    """Train the rows `new_ids` of `model`, in place, towards the targets of `train`; the scores on held-out texts.

    Checkpoints go below `place`: the same call goes on after an interruption.

    Raises:
        KeyboardInterrupt: Ctrl-C, after a checkpoint.
    """
    identity = _identity(model, new_ids, train, recipe)
    folder = place.with_name(f"{place.name}-{identity[:12]}")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with training_new_rows(model, new_ids.start, len(new_ids)):
        training = _RowTraining(model, train, held_out, pairs, recipe, folder, identity)
        training.run()
        scores = training.evaluate()
    model.requires_grad_(True)
    return scores


def _identity(model: EmbeddingModel, new_ids: range, train: Split, recipe: TrainingRecipe) -> str:
    """Everything the rows depend on."""
    state = hashlib.blake2b(json.dumps([[new_ids.start, new_ids.stop], recipe.identity()]).encode(), digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        state.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    for row in train.rows:
        state.update(row.tobytes())
    with torch.no_grad():
        state.update(train.targets.take(range(len(train.rows))).tobytes())
    return state.hexdigest()
