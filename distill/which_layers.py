"""`keep: auto`: which of a model's layers stay is decided by a closed-form start of each choice."""

from __future__ import annotations

from emb.artifact.manifest import LayerDimPair
from emb.distill.held_out_scores import held_out_scores
from emb.distill.preparation import Prepared, splits_of
from emb.distill.projection import start_projections
from emb.distill.student import build_student
from emb.machine import device
from emb.progress import note
from emb.recipes.recipe import Recipe

AUTO = "auto"
CHOICES = ("spread", "ends", "first")  # of equals the first
_TEXTS = 4000


def with_chosen_layers(recipe: Recipe, given: Prepared, trust_remote_code: bool) -> Recipe:
    """`recipe` with the choice of layers whose untrained student is nearest to the teacher on held-out texts.

    Each gets its least-squares projection from the same texts, and is compared by mean cosine at its last exit.
    """
    if recipe.student.keep != AUTO or recipe.student.layers == 0:
        return recipe
    found = {name: _cosine(recipe, name, given, trust_remote_code) for name in CHOICES}
    told = ", ".join(f"{name} {cosine:.4f}" for name, cosine in found.items())
    best = max(found, key=lambda name: found[name])
    note(f"layers to keep, by held-out cosine before training: {told}; {best} is taken")
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"keep": best})})


def _cosine(recipe: Recipe, name: str, given: Prepared, trust_remote_code: bool) -> float:
    cut, targets, seed = recipe.student.model_copy(update={"keep": name}), given.targets, recipe.training.seed
    student = build_student(
        cut, given.teacher, targets.spec, targets.weights, seed=seed, trust_remote_code=trust_remote_code
    ).to(device())
    train, held_out = splits_of(student, given, recipe.capture.max_length)
    start_projections(student, train, [student.layers], recipe, texts=_TEXTS)
    pairs = [LayerDimPair(student.layers, targets.train.dim)]
    known = held_out.targets.take(range(len(held_out.targets)))
    budget = recipe.training.tokens_per_batch
    [score] = held_out_scores(student, held_out.rows, known, pairs, tokens_per_batch=budget)
    return score.cosine
