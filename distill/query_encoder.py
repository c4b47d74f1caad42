"""What a recipe for a query encoder leaves open, filled in.

A query encoder cut from its teacher starts in the teacher's space and needs a fraction of the text that a foreign
start needs (arXiv 2306.11550); queries are short, so windows are. A static encoder, of no layers, comes first: it is
made in minutes, and is what every layer has to beat.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from emb.recipes.recipe import Recipe, StudentRecipe, TrainingRecipe

LAYERS = 4
WINDOW = 64  # tokens
_STUDENT = {"source": "teacher", "layers": LAYERS, "keep": "spread"}
_READ = 325_000  # texts, counted as often as they are read: 77 minutes of a core with AMX, four layers of 768
_EPOCHS = (2.0, 6.0)  # the least, and the most that a small corpus is read
# What a recipe says of training is about layers; of that a static encoder takes over how long, and by which dice.
_ANY_STUDENT = ("max_steps", "max_time", "seed", "precision", "evaluate_every", "checkpoint_seconds")


def is_for_queries(recipe: Recipe) -> bool:
    """Whether the student is to encode queries alone."""
    return bool(recipe.data.documents or recipe.data.as_queries)


def with_query_defaults(recipe: Recipe, depth: int | None = None) -> Recipe:
    """The recipe, with the student and window of a query encoder where it says none.

    `depth` is the number of the teacher's layers, if that is known: of fewer than four all are kept.
    """
    if not is_for_queries(recipe):
        return recipe
    own = recipe.student.model_fields_set
    student: dict[str, Any] = {key: value for key, value in _STUDENT.items() if key not in own}
    if "layers" in student:
        student["layers"] = _layers(recipe, depth)
    if "source" in own:  # a model that somebody chose is not cut unless they say so
        student = {}
    filled = recipe.student.model_copy(update=student)
    return recipe.model_copy(
        update={
            "student": filled,
            "capture": _filled(recipe.capture, {"max_length": WINDOW}),
        }
    )


def with_epochs(recipe: Recipe, texts: int) -> Recipe:
    """The recipe, with the epochs of a query encoder of some layers over so many texts where it says none.

    Layers go on gaining long after two epochs (docs/log.md), and small corpora can afford more of them.
    """
    open_ = is_for_queries(recipe) and recipe.student.layers != 0 and "epochs" not in recipe.training.model_fields_set
    if not open_:
        return recipe
    least, most = _EPOCHS
    epochs = min(most, max(least, round(_READ / max(1, texts), 1)))
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})


def _layers(recipe: Recipe, depth: int | None) -> int:
    if recipe.pairs and not any(layers for layers, _ in recipe.pairs):
        return 0
    named = recipe.student.keep
    return len(named) if isinstance(named, list) else min(LAYERS, LAYERS if depth is None else depth)


def exits_of(depth: int) -> set[int]:
    """The exits of a query encoder of `depth` layers: 1, 2, 4, 6 and so on, and all."""
    return {1, depth, *range(2, depth, 2)} if depth else {0}


def parts_of(recipe: Recipe) -> tuple[Recipe | None, Recipe]:
    """The recipe of the static encoder that a run makes beside its student, and that of the student.

    There is one where `pairs` name 0 layers of a student that has some, or name none and the student is an encoder
    for queries cut from its teacher.
    """
    pairs, layered = recipe.pairs, recipe.student.layers != 0
    without = [pair for pair in pairs or () if not pair[0]]
    wanted = bool(without) if pairs else is_for_queries(recipe) and recipe.student.source in (None, "teacher")
    if not layered or not wanted:
        return None, recipe
    training = {key: value for key, value in recipe.training.model_dump().items() if key in _ANY_STUDENT}
    static = recipe.model_copy(
        update={
            "student": StudentRecipe(source=recipe.student.source, layers=0),
            "training": TrainingRecipe(**training),
            "pairs": without or None,
        }
    )
    rest = [pair for pair in pairs or () if pair[0]]
    return static, recipe.model_copy(update={"pairs": rest or None})


def _filled(section: Any, defaults: dict[str, Any]) -> BaseModel:
    """`section` with `defaults` for what was not said."""
    open_ = {key: value for key, value in defaults.items() if key not in section.model_fields_set}
    return section.model_copy(update=open_)  # type: ignore[no-any-return]
