"""The language stage: an adapter learns to place texts of a new language where the teacher has them, and is merged.

After Bailong (arXiv 2404.00862), which trains the rows of added tokens and low-rank updates of all linear layers, on
a base in 4 bits (QLoRA) where memory is short.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emb.artifact.fingerprints import weights_hash
from emb.artifact.manifest import LayerDimPair, PairScores
from emb.distill.held_out_scores import held_out_scores
from emb.distill.train import Split
from emb.errors import TrainingError
from emb.files import disk_errors
from emb.machine import device, resolve_dtype
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.recipes.recipe import TrainingRecipe
from emb.similarity import Vectors, cosines
from emb.vocabulary.adaptation.adapter_training import AdapterTraining
from emb.vocabulary.adaptation.lora import adapt, save_adapter, with_adapter
from emb.vocabulary.adaptation.memory import Memory, memory_of, peak_bytes, tell_worth
from emb.vocabulary.adaptation.quantized_base import give_back_large_blocks, load_dequantized, load_quantized

_MERGED_COSINE = 0.9999
_PROBES = 8  # texts that a merged model is compared on


@dataclass(frozen=True)
class LanguageResult:
    """What the stage leaves.

    Attributes:
        model: the adapter merged into its base, in float32 on the CPU. With QLoRA that base is the one that was
            trained on, rounded to 4 bits: the adapter has learned to make up for the rounding.
        adapter: its folder, as peft writes it.
        scores: of `model` on the held-out texts, at each pair.
        memory: bytes of weights and of training, and the peak of this process.
    """

    model: EmbeddingModel
    adapter: Path
    scores: list[PairScores]
    memory: Memory


def train_language(
    folder: Path,
    new_ids: Sequence[int],
    train: Split,
    held_out: Split,
    pairs: Sequence[LayerDimPair],
    recipe: TrainingRecipe,
    out: Path,
    *,
    qlora: bool,
    rank: int = 16,
    alpha: int = 32,
    recompute: bool = False,
) -> LanguageResult:
    """Train an adapter of the model in `folder` towards the vectors of `train`, and merge it.

    Checkpoints go below `out`: interrupted, the same call goes on to the weights it would have had. Projections stay
    as they are.

    Args:
        folder: a model as this package saves it.
        new_ids: rows of its token table that are new, and are trained whole; without any, the table stays as it is.
        pairs: (layers, dim) outputs trained together.
        qlora: keep the linear layers in 4 bits while training.
        recompute: compute activations again in the backward pass, which takes longer and far less memory.

    Raises:
        KeyboardInterrupt: Ctrl-C, after a checkpoint.
        MissingExtra: peft or bitsandbytes is not installed.
        TrainingError: the loss is no number, an adapter tensor learns nothing, or the merged model gives other vectors.
    """
    adapter, memory = train_adapter(
        folder, new_ids, train, held_out, pairs, recipe, out, qlora=qlora, rank=rank, alpha=alpha, recompute=recompute
    )
    model = merge_adapter(folder, adapter, held_out.rows[:_PROBES], qlora=qlora)
    targets = held_out.targets.take(range(len(held_out.targets)))
    scores = held_out_scores(model, held_out.rows, targets, pairs, tokens_per_batch=recipe.tokens_per_batch)
    return LanguageResult(model, adapter, scores, memory)


def train_adapter(
    folder: Path,
    new_ids: Sequence[int],
    train: Split,
    held_out: Split,
    pairs: Sequence[LayerDimPair],
    recipe: TrainingRecipe,
    out: Path,
    *,
    qlora: bool,
    rank: int = 16,
    alpha: int = 32,
    recompute: bool = False,
) -> tuple[Path, Memory]:
    """The first half of `train_language`, which alone is done in little memory; returns the adapter's folder."""
    give_back_large_blocks()
    before = peak_bytes()
    base = (
        load_quantized(folder, compute=resolve_dtype(recipe.precision), device=device())
        if qlora
        else load_model(folder)
    )
    torch.manual_seed(recipe.seed)  # the first factor of each update is drawn
    adapted = adapt(base, new_ids, max(pair.layers for pair in pairs), rank=rank, alpha=alpha)
    memory = memory_of(base, recipe.tokens_per_batch, recompute=recompute, process=before)
    if qlora:
        tell_worth(memory)
    identity = _identity(folder, new_ids, train, pairs, recipe, (qlora, rank, alpha))
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    training = AdapterTraining(base, train, held_out, pairs, recipe, out, identity, recompute=recompute)
    training.run()
    save_adapter(adapted, out / "adapter", folder.name)
    return out / "adapter", memory.measured()


def merge_adapter(
    folder: Path, adapter: Path, probes: Sequence[np.ndarray[Any, Any]], *, qlora: bool
) -> EmbeddingModel:
    """A fresh load of the model in `folder` in float32, rounded as in training if `qlora`, with `adapter` inside it.

    Args:
        probes: token ids of some texts, on whose vectors it is held against the same model with the adapter beside it.

    Raises:
        TrainingError: the vectors differ.
    """
    model = load_dequantized(folder) if qlora else load_model(folder)
    adapted = with_adapter(model, adapter)
    model.eval()
    expected = _vectors(model, probes)
    model.encoder = adapted.merge_and_unload()
    worst = float(cosines(_vectors(model, probes), expected).min())
    if not worst >= _MERGED_COSINE:
        raise TrainingError(
            f"{adapter}: merged, the model gives other vectors (smallest cosine {worst:.4f})",
            "use the adapter beside its model, with peft",
        )
    model.requires_grad_(True)
    return model


def _vectors(model: EmbeddingModel, rows: Sequence[np.ndarray[Any, Any]]) -> Vectors:
    """Vectors `(texts, dim)` of the deepest exit."""
    found = np.zeros((len(rows), model.dim), np.float32)
    for batch, vectors in model.embed_ids(rows):
        found[batch] = vectors.numpy()
    return found


def _identity(
    folder: Path,
    new_ids: Sequence[int],
    train: Split,
    pairs: Sequence[LayerDimPair],
    recipe: TrainingRecipe,
    adapter: tuple[bool, int, int],
) -> str:
    """Everything that the adapter's weights depend on."""
    state = hashlib.blake2b(digest_size=16)
    for index, row in enumerate(train.rows):
        state.update(np.asarray(row, np.int64).tobytes() + train.targets.take([index]).tobytes())
    facts = [weights_hash(folder), sorted(int(each) for each in new_ids), list(map(asdict, pairs))]
    state.update(json.dumps([*facts, recipe.identity(), *adapter], sort_keys=True).encode())
    return state.hexdigest()
