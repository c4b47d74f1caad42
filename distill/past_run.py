"""The distillation that an artifact comes from, found again: its recipe, its texts, the teacher's vectors for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import Lineage, TeacherRecord
from emb.data.corpus import Corpus, split
from emb.distill.targets import corpus_of, targets_of, tokenise
from emb.distill.train import Split
from emb.errors import DataError, TeacherError, UsageError
from emb.model.embedding_model import EmbeddingModel
from emb.progress import warn
from emb.recipes.recipe import Recipe
from emb.teachers.cache import TeacherEmbeddings
from emb.teachers.capture import cached
from emb.teachers.registry import Resolved, remembered


@dataclass(frozen=True)
class PastRun:
    """What a student was distilled with: its recipe, both parts of the corpus, the teacher's vectors for them in that
    order.
    """

    recipe: Recipe
    corpus: Corpus
    train: Corpus
    held_out: Corpus
    vectors: TeacherEmbeddings
    fingerprint: str

    def splits(self, model: EmbeddingModel) -> tuple[Split, Split]:
        """The training and the held-out part, as `model` reads them."""
        ends = (0, len(self.train), len(self.train) + len(self.held_out))
        places = [self.vectors.places[start:end] for start, end in pairwise(ends)]
        limit = self.recipe.capture.max_length
        first, second = (
            Split(tokenise(model, part.texts, limit), TeacherEmbeddings(self.vectors.shards, where))
            for part, where in zip((self.train, self.held_out), places, strict=True)
        )
        return first, second


def find_past_run(
    student: Path, lineage: Lineage, sources: Sequence[str] = (), *, trust_remote_code: bool = False
) -> PastRun:
    """Find what the model in `student`, of this `lineage`, was distilled with; `sources` replace the places its texts
    came from, but for translations: these are read where they were.

    The teacher itself is needed only for texts whose vectors are not cached.

    Raises:
        UsageError: the model was not distilled.
        DataError: the texts are no longer where they were.
        TeacherError: vectors are missing, and the teacher is not at hand or is another.
    """
    if not lineage.teacher or not lineage.recipe:
        raise UsageError(
            "the model was not distilled by emb, so there is no teacher to train it against",
            "give a run of `emb distill`, its student, or an export of it",
        )
    recipe = Recipe.model_validate(lineage.recipe)
    corpus = _corpus(recipe, sources)
    if not sources and lineage.data and corpus.digest != lineage.data.hash:
        warn("the texts have changed since the distillation: some that are held out now may have been trained on")
    train, held_out = split(corpus, recipe.data.holdout)
    texts, fingerprint = [*train.texts, *held_out.texts], lineage.teacher.fingerprint
    found = cached(fingerprint, texts) if fingerprint else None
    if found is None or fingerprint is None:
        found, fingerprint = _captured(
            recipe, _same_teacher(lineage.teacher, student), train, held_out, trust_remote_code
        )
    return PastRun(recipe, corpus, train, held_out, found, fingerprint)


def _corpus(recipe: Recipe, sources: Sequence[str]) -> Corpus:
    data = recipe.data.model_copy(update={"sources": list(sources)}) if sources else recipe.data
    try:
        return corpus_of(recipe.model_copy(update={"data": data}))
    except DataError as error:
        if sources and not data.parallel:
            raise
        hint = "name them with --heal-data PATH; they are read as the recipe read its own"
        if data.parallel:  # nothing says which of other texts would be translations
            hint = f"put {', '.join(data.parallel)} back where it was; for others, {hint}"
        raise DataError(f"the texts of the distillation are not where they were: {error.message}", hint) from error


def _captured(
    recipe: Recipe, teacher: Resolved, train: Corpus, held_out: Corpus, trust_remote_code: bool
) -> tuple[TeacherEmbeddings, str]:
    targets = targets_of(recipe, teacher, train, held_out, trust_remote_code)
    places = np.concatenate([targets.train.places, targets.held_out.places])
    return TeacherEmbeddings(targets.train.shards, places), targets.fingerprint


def _same_teacher(named: TeacherRecord, student: Path) -> Resolved:
    """The very teacher, where it lay, lies now or under its name."""
    for found in remembered(named, student):
        if weights_hash(found.path) == named.weights:
            return found
    hint = (
        "set EMB_CACHE to where its vectors are, give texts that were cached with --heal-data, or put the teacher at"
        " $EMB_MODELS"
    )
    raise TeacherError(
        f"{named.name}: its vectors of these texts are not all cached, and the teacher itself is not on this machine",
        hint,
    )
