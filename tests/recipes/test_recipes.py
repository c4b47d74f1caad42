"""Recipes: what ships is valid, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from emb.errors import UsageError
from emb.recipes.recipe import Recipe, TrainingRecipe, dump, load_recipe, shipped
from emb.recipes.yaml_files import load_yaml


def _write(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    recipe = load_recipe(name, {"teacher": "tiny"})
    assert recipe.teacher == "tiny"
    assert recipe != load_recipe(None, {"teacher": "tiny"}), "it says nothing that is not the default"


@pytest.mark.parametrize(("written", "seconds"), [("20m", 1200), ("1h30m", 5400), (90, 90), ("45", 45), (None, None)])
def test_a_time_is_written_as_on_the_command_line(written: object, seconds: float | None, tmp_path: Path) -> None:
    recipe = load_recipe(None, {"teacher": "t", "training.max_time": written})
    assert recipe.training.max_time == seconds
    (tmp_path / "again.yaml").write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.yaml"), {}) == recipe


@pytest.mark.parametrize("written", ["soon", 0, "0s", -5, ""])
def test_what_is_no_time_is_named(written: object) -> None:
    with pytest.raises(UsageError, match=r"training\.max_time.*is not a time such as 90s, 45m or 1h30m"):
        load_recipe(None, {"teacher": "t", "training.max_time": written})


def test_recipes_ship() -> None:
    assert {"leaf", "smoke"} <= set(shipped())
    assert "teachers" not in shipped()


def test_dump_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe("leaf", {"teacher": "tiny", "pairs": [[2, 64], [4, 128]], "data.sources": ["café.txt"]})
    text = dump(recipe)
    assert load_recipe(_write(tmp_path, text), {}) == recipe
    assert set(yaml.safe_load(text)) == set(Recipe.model_fields)


def test_overrides_win_and_reach_deep(tmp_path: Path) -> None:
    name = _write(tmp_path, "teacher: a\ntraining: {lr: 0.001, epochs: 2}\n")
    recipe = load_recipe(name, {"teacher": "b", "training.lr": 0.0005, "student.layers": 3})
    assert (recipe.teacher, recipe.training.lr, recipe.training.epochs, recipe.student.layers) == ("b", 0.0005, 2, 3)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("teacher: a\ntraning: {lr: 1}", "traning", "not permitted"),
        ("teacher: a\ntraining: {learning_rate: 1}", "training.learning_rate", "not permitted"),
        ("teacher: a\ntraining: {lr: high}", "training.lr", "valid number"),
        ("teacher: a\ntraining: {lr: -1}", "training.lr", "greater than 0"),
        ("teacher: a\ntraining: {lr: .inf}", "training.lr", "finite"),
        ("teacher: a\ntraining: {lr: .nan}", "training.lr", "finite"),
        ("teacher: a\ntraining: {lr: 1.0e-5, lr_end: 1.0e-4}", "training", "above lr"),
        ("teacher: a\ntraining: {max_steps: 0}", "training.max_steps", "greater than or equal to 1"),
        ("teacher: a\ntraining: fast", "training", "valid dictionary"),
        ("teacher: a\ntraining:", "training", "valid dictionary"),
        ("teacher: a\ndata: {sources: corpus.txt}", "data.sources", "valid list"),
        ("teacher: a\npairs: [[2, 64, 3]]", "pairs.0", "2 items"),
        ("teacher: a\npairs: [[two, 64]]", "pairs.0.0", "valid integer"),
        ("teacher: [a]", "teacher", "valid string"),
        ("teacher: a\n1: 2", "1", ""),
    ],
)
def test_wrong_keys_and_values_are_named(tmp_path: Path, text: str, where: str, what: str) -> None:
    name = _write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_recipe(name, {})
    assert name in caught.value.message
    assert f"{where}: " in caught.value.message
    assert what in caught.value.message
    assert "docs/recipes.md" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1", "not valid YAML"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
        ("- a\n- b", "expected keys and values"),
        ("just text", "expected keys and values"),
    ],
)
def test_not_a_recipe_at_all(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        load_recipe(_write(tmp_path, text), {"teacher": "a"})


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"teacher: caf\xe9")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(str(path), {})


def test_unknown_name_lists_what_ships() -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("laef", {"teacher": "a"})
    assert "leaf" in caught.value.hint


def test_without_a_teacher() -> None:
    for name in (None, "leaf"):
        with pytest.raises(UsageError, match="no teacher given"):
            load_recipe(name, {})


@pytest.mark.parametrize("override", [{"teacher.name": "b"}, {"training.lr.start": 1}])
def test_override_below_a_value(override: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a section"):
        load_recipe(_write(tmp_path, "teacher: a\ntraining: {lr: 0.001}\n"), override)


def test_override_of_an_unknown_key() -> None:
    with pytest.raises(UsageError, match=r"training\.speed"):
        load_recipe(None, {"teacher": "a", "training.speed": 3})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("teacher: a\nlayers: 2\nteacher: b\n", "line 3: the key 'teacher' is there already, in line 1"),
        (
            "teacher: a\ntraining:\n  lr: 1e-3\n  seed: 1\n  lr: 1e-4\n",
            "line 5: the key 'lr' is there already, in line 3",
        ),
        ("teacher: a\ndata: {limit: 5, limit: 6}\n", "line 2: the key 'limit' is there already, in line 2"),
        ("teacher: a\n1: x\n0x1: y\n", "line 3: the key 1 is there already, in line 2"),
    ],
)
def test_a_key_that_is_there_twice(tmp_path: Path, text: str, said: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path, {})
    assert caught.value.message == f"{path}: {said}"
    assert caught.value.hint


def test_keys_of_other_sections_and_merged_ones_are_not_twice(tmp_path: Path) -> None:
    text = "teacher: a\ntraining: &one {seed: 1, lr: 1.0e-3}\nstudent: {layers: 2}\n"
    assert load_recipe(_write(tmp_path, text), {}).training.seed == 1
    assert load_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {x: 1}\n")["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize("text", ["teacher: !!python/object/apply:os.system [true]", "? [a]\n: b", "a: [1"])
def test_other_yaml_that_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML"):
        load_recipe(_write(tmp_path, text), {})


def test_a_loss_is_the_one_term_of_its_name_and_names_the_same_run() -> None:
    before, now = TrainingRecipe(loss="l2"), TrainingRecipe(objective=[{"l2": 1.0}])  # type: ignore[call-arg]
    assert before == now
    assert now.identity()["loss"] == "l2"
    assert "objective" not in now.identity()
    assert TrainingRecipe().identity()["loss"] is None
    weighted = TrainingRecipe(objective=[{"l2": 1.0}, {"cosine": 0.5}]).identity()
    assert weighted["objective"] == [{"l2": 1.0}, {"cosine": 0.5}]
    assert "loss" not in weighted
    with pytest.raises(ValidationError, match="give one of them"):
        TrainingRecipe(loss="l2", objective=[{"l2": 1.0}])  # type: ignore[call-arg]
