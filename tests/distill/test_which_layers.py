"""Which layers stay, and whether the teacher reads the language at all."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from query_runs import FEW, distil, query_recipe

import emb
from emb.data.documents import Document
from emb.distill import which_layers
from emb.distill.language import warn_of_shards
from emb.distill.preparation import prepare, read_texts
from emb.model.embedding_model import load_model
from emb.recipes.recipe import StudentRecipe, load_recipe
from emb.teachers.registry import resolve

pytestmark = pytest.mark.usefixtures("query_cache")


def test_auto_keeps_the_choice_that_is_nearest_before_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"spread": 0.5, "ends": 0.7, "first": 0.6}
    monkeypatch.setattr(which_layers, "_cosine", lambda recipe, name, *_: told[name])
    chosen = which_layers.with_chosen_layers(query_recipe(**{"student.keep": "auto"}), None, False)  # type: ignore[arg-type]
    assert chosen.student.keep == "ends"
    assert "ends is taken" in " ".join(capsys.readouterr().err.split())
    told["spread"] = 0.7
    again = which_layers.with_chosen_layers(query_recipe(**{"student.keep": "auto"}), None, False)  # type: ignore[arg-type]
    assert again.student.keep == "spread", "of equals the first"
    named = query_recipe(**{"student.keep": "first"})
    assert which_layers.with_chosen_layers(named, None, False) == named  # type: ignore[arg-type]


def test_a_run_with_auto_remembers_what_it_chose(place: Path, tmp_path: Path) -> None:
    found = distil(place, tmp_path / "run", layers=2, rotate=False, overrides={"student.keep": "auto"})
    kept = yaml.safe_load((found.run / "recipe.yaml").read_text())["student"]["keep"]
    assert kept in which_layers.CHOICES
    layers = load_model(found.student).encoder.encoder.layer
    teacher = load_model(place / "teacher").encoder.encoder.layer
    own = {"spread": [0, 3], "ends": [0, 3], "first": [0, 1]}[kept]
    assert len(layers) == 2
    for layer, index in zip(layers, own, strict=True):
        moved = layer.attention.output.dense.weight - teacher[index].attention.output.dense.weight
        assert float(moved.detach().abs().mean()) < 0.01, "other layers were kept than the recipe says"


def test_the_nearness_of_a_choice_is_that_of_its_fitted_student(place: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, {"teacher": str(place / "teacher"), "data.sources": [str(place / "general.txt")]})
    teacher = resolve(str(place / "teacher"))
    given = prepare(recipe, teacher, read_texts(recipe)[1], None, False)
    whole = recipe.model_copy(update={"student": StudentRecipe(source="teacher", layers=4, keep="auto")})
    one = recipe.model_copy(update={"student": StudentRecipe(source="teacher", layers=1, keep="auto")})
    assert which_layers._cosine(whole, "first", given, False) > 0.99, "all layers are the teacher itself"
    assert which_layers._cosine(one, "first", given, False) < which_layers._cosine(whole, "first", given, False)


def _told(place: Path, texts: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    documents = [Document("", text) for text in texts]
    model = load_model(place / "teacher")
    warn_of_shards(model, SimpleNamespace(documents=documents, search=None))  # type: ignore[arg-type]
    return " ".join(capsys.readouterr().err.split())


def test_a_language_in_shards_is_warned_of(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _told(place, ["the cat sat on the mat and looked at the rain", "a list holds items in order"], capsys) == ""
    assert "in shards (" in _told(place, ["Donaudampfschifffahrtsgesellschaft Ueberschwemmungsgebiet"], capsys)
    assert "unknown" in _told(place, ["一架飞机正在起飞", "一名女子带着一只宠物狗"], capsys)


def test_the_warning_says_how_well_the_teacher_finds_its_own(
    run: Any, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Donaudampfschifffahrt {0} Ueberschwemmungsgebiet. Kapitaenspatent {0}"
    rows = [{"text": text.format(number)} for number in range(400)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    emb.distill(
        str(place / "teacher"), documents=[tmp_path / "docs.jsonl"], layers=0, overrides=FEW, out=tmp_path / "run"
    )
    assert "finds the document itself with nDCG@10" in " ".join(capsys.readouterr().err.split())
