"""Shared by the tests of the language stage: tiny models, and splits with something to learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import SENTENCES

from emb.artifact.manifest import LayerDimPair
from emb.distill.train import Split
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.recipes.recipe import TrainingRecipe
from emb.similarity import unit
from emb.teachers.cache import in_memory
from emb.vocabulary.adaptation.language_stage import LanguageResult, train_language

TEXTS = [f"{first} {second}" for first in SENTENCES[:12] for second in SENTENCES[:4]]


def recipe(**values: Any) -> TrainingRecipe:
    """A short training in float32."""
    small = {"max_steps": 8, "epochs": 50, "tokens_per_batch": 128, "precision": "fp32", "lr": 3e-3, "warmup_steps": 0}
    return TrainingRecipe.model_validate(small | values)


def splits(model: EmbeddingModel) -> tuple[Split, Split]:
    """Texts to train on and held-out ones; a text's vector is the sum of random ones of its tokens."""
    rows = model.tokenizer().encode(TEXTS)
    random = np.random.default_rng(0).normal(size=(len(model.encoder.get_input_embeddings().weight), model.dim))
    vectors = unit(np.stack([random[row].mean(0) for row in rows])).astype(np.float32)
    return Split(rows[:36], in_memory(vectors[:36])), Split(rows[36:], in_memory(vectors[36:]))


def used_ids(model: EmbeddingModel, count: int) -> list[int]:
    """The ids that most of the texts have: they stand for new tokens."""
    found, times = np.unique(np.concatenate(model.tokenizer().encode(TEXTS)), return_counts=True)
    return [int(each) for each in found[np.argsort(-times, kind="stable")][:count]]


def trained(
    folder: Path, out: Path, *, new_ids: Sequence[int] = (), pairs: Sequence[LayerDimPair] = (), **options: Any
) -> LanguageResult:
    """The stage on the model in `folder`; keywords of the recipe and of the stage both are `options`."""
    torch.set_num_threads(1)
    model = load_model(folder)
    train, held_out = splits(model)
    own = {key: options.pop(key) for key in ("qlora", "rank", "alpha", "recompute") if key in options}
    pairs = pairs or [LayerDimPair(model.layers, model.dim)]
    return train_language(folder, new_ids, train, held_out, pairs, recipe(**options), out, **{"qlora": False, **own})
