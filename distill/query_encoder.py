"""What a recipe for a query encoder leaves open, filled in.

A query encoder cut from its teacher starts in the teacher's space and needs a fraction of the text that a foreign
start needs (arXiv 2306.11550); queries are short, so windows are.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from emb.recipes.recipe import Recipe

LAYERS = 4
WINDOW = 64  # tokens
_STUDENT = {"source": "teacher", "layers": LAYERS, "keep": "spread"}
_TRAINING = {"epochs": 2.0}


def with_query_defaults(recipe: Recipe, depth: int | None = None) -> Recipe:
    """The recipe, with the student, window and length of training of a query encoder where it says none.

    `depth` is the number of the teacher's layers, if that is known: of fewer than four all are kept.
    """
    if not recipe.data.documents and not recipe.data.as_queries:
        return recipe
    own = recipe.student.model_fields_set
    student: dict[str, Any] = {key: value for key, value in _STUDENT.items() if key not in own}
    if "layers" in student:
        named = recipe.student.keep
        student["layers"] = len(named) if isinstance(named, list) else min(LAYERS, LAYERS if depth is None else depth)
    if "source" in own:  # a model that somebody chose is not cut unless they say so
        student = {}
    return recipe.model_copy(
        update={
            "student": recipe.student.model_copy(update=student),
            "capture": _filled(recipe.capture, {"max_length": WINDOW}),
            "training": _filled(recipe.training, _TRAINING if recipe.student.layers != 0 else {}),
        }
    )


def _filled(section: Any, defaults: dict[str, Any]) -> BaseModel:
    """`section` with `defaults` for what was not said."""
    open_ = {key: value for key, value in defaults.items() if key not in section.model_fields_set}
    return section.model_copy(update=open_)  # type: ignore[no-any-return]
