"""How finely documents are cut into pseudo-queries where the recipe says nothing of it.

A query encoder that reads 325,000 texts learns more from many of them than from few of them often (docs/log.md), so a
small collection gives all its sentences, and a large one, which has enough, a few of each document.
"""

from __future__ import annotations

from collections.abc import Sequence

from emb.data.documents import Document
from emb.data.pseudo_queries import ALL, Cuts, PseudoQuery, pseudo_queries
from emb.recipes.recipe import CutsRecipe, Recipe

_MOST = 160_000  # pseudo-queries of a collection that is cut so: two epochs of them are what is read at least
_SAMPLE = 1000  # documents that say how many there would be


def with_cuts(recipe: Recipe, documents: Sequence[Document]) -> Recipe:
    """The recipe, with all sentences of `documents` where it says nothing of them and they are not too many."""
    data = recipe.data
    if "sentences" in data.cuts.model_fields_set or not documents:
        return recipe
    fine = data.cuts.model_copy(update={"sentences": ALL})
    if _expected(documents, fine, recipe.training.seed) > _MOST:
        return recipe
    return recipe.model_copy(update={"data": data.model_copy(update={"cuts": fine})})


def cut_from(documents: Sequence[Document], recipe: Recipe) -> list[PseudoQuery]:
    """The pseudo-queries of `documents`, as the recipe cuts them."""
    return _cut(documents, recipe.data.cuts, recipe.training.seed)


def _expected(documents: Sequence[Document], cuts: CutsRecipe, seed: int) -> float:
    sample = documents[:: max(1, len(documents) // _SAMPLE)]
    return len(_cut(sample, cuts, seed)) * len(documents) / len(sample)


def _cut(documents: Sequence[Document], cuts: CutsRecipe, seed: int) -> list[PseudoQuery]:
    return pseudo_queries(documents, Cuts(**cuts.model_dump()), seed)
