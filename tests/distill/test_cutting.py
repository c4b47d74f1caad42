"""How finely documents are cut where a recipe leaves it open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import SENTENCES

from emb.data.documents import Document
from emb.data.pseudo_queries import sentences
from emb.distill import cutting
from emb.distill.cutting import cut_from, with_cuts
from emb.distill.preparation import read_texts
from emb.recipes.recipe import CutsRecipe, Recipe, load_recipe

DOCUMENTS = [Document(f"Part {n}", " ".join([f"This is part {n} of all.", *SENTENCES])) for n in range(20)]
COARSE, FINE = CutsRecipe(), CutsRecipe(sentences=100)


def _recipe(**overrides: Any) -> Recipe:
    return load_recipe(None, {"teacher": "t", "data.documents": ["docs"]} | overrides)


def test_a_small_collection_gives_all_its_sentences() -> None:
    recipe = with_cuts(_recipe(), DOCUMENTS)
    assert recipe.data.cuts == FINE
    own = {each.text for each in cut_from(DOCUMENTS[:1], recipe)}
    assert {" ".join(each.split()[:40]) for each in sentences(DOCUMENTS[0].text)} <= own


def test_a_large_one_gives_a_few_of_each_document(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe()
    fine = len(cut_from(DOCUMENTS, with_cuts(recipe, DOCUMENTS)))
    monkeypatch.setattr(cutting, "_MOST", fine - 1)
    assert with_cuts(recipe, DOCUMENTS) is recipe
    assert recipe.data.cuts == COARSE


def test_how_many_there_would_be_is_told_from_some_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document("", f"Number {n} alone. It says {n * 7} to all, and {n * 11} to some.") for n in range(20)]
    whole = len(cut_from(documents, with_cuts(_recipe(), documents)))
    monkeypatch.setattr(cutting, "_SAMPLE", 4)
    asked: list[int] = []
    original = cutting.pseudo_queries
    monkeypatch.setattr(cutting, "pseudo_queries", lambda docs, *a: [asked.append(len(docs)), *original(docs, *a)][1:])
    monkeypatch.setattr(cutting, "_MOST", whole * 1.3)
    assert with_cuts(_recipe(), documents).data.cuts == FINE
    monkeypatch.setattr(cutting, "_MOST", whole * 0.7)
    assert with_cuts(_recipe(), documents).data.cuts == COARSE
    assert asked == [4, 4]


def test_what_the_recipe_says_is_kept() -> None:
    assert with_cuts(_recipe(**{"data.cuts.spans": 1}), DOCUMENTS).data.cuts == FINE.model_copy(update={"spans": 1})
    said = _recipe(**{"data.cuts.sentences": 4})
    assert with_cuts(said, DOCUMENTS) is said


def test_without_documents_nothing_is_cut() -> None:
    recipe = load_recipe(None, {"teacher": "t"})
    assert with_cuts(recipe, []) is recipe


def test_texts_are_read_with_the_recipe_that_cut_them(place: Path) -> None:
    recipe, source = read_texts(_recipe(**{"data.documents": [str(place / "docs.jsonl")]}))
    assert recipe.data.cuts == FINE
    assert source.queries == cut_from(source.documents, recipe)
    again, same = read_texts(recipe)
    assert (again, same) == (recipe, source)
