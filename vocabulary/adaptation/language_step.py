"""The language stage as one step of an adaptation: an adapter trained on the model as it is by then, and kept where
held-out texts gain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emb.artifact.fingerprints import weights_hash
from emb.artifact.manifest import LayerDimPair, Manifest
from emb.data.corpus import Text
from emb.distill.train import Split
from emb.files import atomic_folder
from emb.model.embedding_model import EmbeddingModel, save_model
from emb.progress import note
from emb.recipes.recipe import TrainingRecipe
from emb.similarity import cosines
from emb.teachers.cache import TeacherEmbeddings
from emb.vocabulary.adaptation.language_stage import train_language
from emb.vocabulary.adaptation.memory import Memory
from emb.vocabulary.reading import rows_of, vectors_of

LANGUAGE_TRAINING = TrainingRecipe(epochs=1, lr=2e-4, lr_end=1e-5, warmup_steps=20, weight_decay=0.0)


@dataclass(frozen=True)
class Learned:
    """Texts, and the vectors that they are to have."""

    texts: Sequence[Text]
    vectors: TeacherEmbeddings

    def split(self, model: EmbeddingModel) -> Split:
        """As `model` reads them."""
        return Split(rows_of(model, self.texts), self.vectors)

    def cosine(self, model: EmbeddingModel) -> float:
        """Mean cosine of the model's vectors to theirs."""
        known = self.vectors.take(range(len(self.texts)))
        return float(cosines(vectors_of(model, rows_of(model, self.texts)), known).mean())


@dataclass(frozen=True)
class LanguageStep:
    """What came of it: mean cosine of held-out texts to their targets before and after, whether the adapter was `kept`
    and where it lies, and what its training took in memory.
    """

    method: str
    cosine_before: float
    cosine_after: float
    kept: bool
    adapter: Path
    memory: Memory


def language_step(
    model: EmbeddingModel,
    known: Manifest | None,
    new_ids: Sequence[int],
    train: Learned,
    held_out: Learned,
    pairs: Sequence[LayerDimPair],
    recipe: TrainingRecipe,
    place: Path,
    *,
    qlora: bool,
) -> tuple[EmbeddingModel, LanguageStep]:
    """Train an adapter of `model`; the merged model, or `model` itself where that is nearer to what it should be.

    Below `place` lie its base and its checkpoints: interrupted, the same call goes on.
    """
    base = place.with_name(f"{place.name}-base")
    with atomic_folder(base, replace=True) as folder:
        save_model(model, folder)
        if known:  # which says that there are exits
            replace(known, files={}, digest="").save(folder)
    facts = json.dumps([weights_hash(base), recipe.identity(), qlora])
    out = place.with_name(f"{place.name}-language-{hashlib.blake2b(facts.encode(), digest_size=6).hexdigest()}")
    before = held_out.cosine(model)
    found = train_language(base, new_ids, train.split(model), held_out.split(model), pairs, recipe, out, qlora=qlora)
    after = held_out.cosine(found.model)
    kept = after > before
    note(f"language stage: held-out cosine {before:.4f} → {after:.4f}{'' if kept else '; left out'}")
    step = LanguageStep("qlora" if qlora else "lora", before, after, kept, found.adapter, found.memory)
    return (found.model if kept else model), step
