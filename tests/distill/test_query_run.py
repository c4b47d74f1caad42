"""A whole run for documents: a rotated teacher, a static encoder and a layered student beside each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from query_runs import FEW, distil, query_recipe
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES

import emb
from emb.artifact.manifest import Manifest
from emb.artifact.runs import run_status
from emb.cli import cli
from emb.distill import one_student
from emb.distill.preparation import read_texts
from emb.distill.query_encoder import exits_of, parts_of, with_epochs
from emb.distill.student import depth_of
from emb.errors import UsageError
from emb.model.embedding_model import load_model
from emb.recipes.recipe import load_recipe
from emb.teachers.cache import row_key
from emb.teachers.capture import recorded

pytestmark = pytest.mark.usefixtures("query_cache")


def test_one_run_has_exits_at_no_layers_and_at_more(run: Any) -> None:
    assert sorted({each.layers for each in run.scores}) == [0, 1, 2, 4]
    assert [each.layers for each in run.scores] == sorted(each.layers for each in run.scores)
    assert {each.dim for each in run.scores} == {16, 32}
    assert all(each.retention is not None for each in run.scores)
    assert run_status(run.run / "static") == run_status(run.run) == "finished"


def test_exits_of_a_query_encoder() -> None:
    assert [sorted(exits_of(depth)) for depth in (0, 1, 2, 4, 6, 3)] == [
        [0],
        [1],
        [1, 2],
        [1, 2, 4],
        [1, 2, 4, 6],
        [1, 2, 3],
    ]


def test_exports_find_the_model_that_has_the_layers(run: Any, tmp_path: Path) -> None:
    folders = emb.export(run.run, layers=[2, 0], dims=[16], out=tmp_path / "out")
    assert [folder.name for folder in folders] == ["0x16", "2x16"]
    kinds = [type(SentenceTransformer(str(folder))[0]).__name__ for folder in folders]
    assert kinds == ["StaticEmbedding", "Transformer"]
    with pytest.raises(UsageError, match="layers 3: not trained"):
        emb.export(run.run, layers=[0, 3], out=tmp_path / "none")
    assert not (tmp_path / "none").exists(), "something was written before all was checked"


def test_whether_there_is_a_static_encoder_beside() -> None:
    static, student = parts_of(query_recipe())
    assert static is not None
    assert (static.student.layers, student.student.layers) == (0, 4)
    assert parts_of(query_recipe(**{"pairs": [[2, 16]]}))[0] is None
    assert parts_of(query_recipe(**{"student.source": "mine"}))[0] is None
    assert parts_of(query_recipe(**{"student.layers": 0}))[0] is None
    assert parts_of(load_recipe(None, {"teacher": "t"}))[0] is None
    only = query_recipe(**{"pairs": [[0, 16]]})
    assert (only.student.layers, parts_of(only)[0]) == (0, None)
    static, student = parts_of(query_recipe(**{"pairs": [[0, 16], [2, 32]]}))
    assert static is not None
    assert (static.pairs, student.pairs) == ([(0, 16)], [(2, 32)])


def test_training_of_layers_says_nothing_of_rows() -> None:
    static, _ = parts_of(query_recipe(**{"training.lr": 3e-4, "training.seed": 5, "training.max_steps": 9}))
    assert static is not None
    assert static.training.model_fields_set.isdisjoint({"lr", "epochs"})
    assert (static.training.seed, static.training.max_steps) == (5, 9)


def test_the_static_encoder_trains_as_one_alone(run: Any, place: Path, tmp_path: Path) -> None:
    alone = distil(place, tmp_path / "alone", layers=0)
    ours, theirs = (load_model(folder / "student") for folder in (run.run / "static", alone.run))
    assert torch.equal(ours.encoder.embedding.weight, theirs.encoder.embedding.weight)


def test_the_teacher_is_rotated_to_the_documents(run: Any, place: Path) -> None:
    assert run.teacher == run.run / "teacher"
    for folder in (run.run / "static" / "student", run.run / "student"):
        known = Manifest.load(folder).lineage.teacher
        assert known is not None
        assert Path(known.path) == run.teacher.resolve()
        assert known.name == "teacher-rotated"
    plain, turned = (SentenceTransformer(str(folder)).encode(SENTENCES) for folder in (place / "teacher", run.teacher))
    np.testing.assert_allclose(plain @ plain.T, turned @ turned.T, atol=1e-5)
    vectors = [SentenceTransformer(str(run.run / "student")).encode(SENTENCES)]
    assert (vectors[0] * turned).sum(1).mean() > (vectors[0] * plain).sum(1).mean() + 0.2, (
        "the student is in another space"
    )


def test_only_what_the_run_needs_is_rotated_in_the_cache(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    emb.distill(
        str(place / "teacher"),
        data=[place / "general.txt"],
        overrides=FEW | {"capture.max_length": 64},
        out=tmp_path / "a",
    )
    distil(place, tmp_path / "b")
    moved = [facts for _, facts in recorded()]
    assert len({facts["weights"] for facts in moved}) == 2
    general = (place / "general.txt").read_text().splitlines()[0]
    for fingerprint, facts in recorded():
        keys = {
            row["key"].tobytes()
            for path in (tmp_path / "cache" / "teacher" / fingerprint).glob("*.npy")
            for row in np.load(path)
        }
        plain = facts["weights"] == Manifest.load(tmp_path / "a" / "student").lineage.teacher.weights  # type: ignore[union-attr]
        assert (row_key("", general) in keys) <= plain


def test_when_the_teacher_is_left_as_it_is(place: Path, run: Any, tmp_path: Path) -> None:
    assert distil(place, tmp_path / "no", rotate=False).teacher is None
    with pytest.raises(UsageError, match="no documents to turn a model to"):
        emb.distill(str(place / "teacher"), data=[place / "general.txt"], rotate=True, out=tmp_path / "none")
    again = emb.distill(str(run.teacher), documents=[place / "docs.jsonl"], out=tmp_path / "again", overrides=FEW)
    assert again.teacher is None, "a teacher whose first dims hold all they can was rotated once more"


def test_the_command_tells_what_each_exit_costs_and_who_encodes_documents(
    run: Any, place: Path, tmp_path: Path
) -> None:
    told = CliRunner().invoke(cli, ["distill", "--resume", "--out", str(run.run)])
    assert told.exit_code == 0, told.output
    header = told.stdout.splitlines()[0]
    assert all(name in header for name in ("kept in your documents", "MB in int8", "ms a query"))
    assert f"documents are encoded by {run.teacher}\n" in told.stdout


def test_costs_are_those_of_the_pair(run: Any, tmp_path: Path) -> None:
    for pair in ((0, 16), (2, 16), (4, 32)):
        [folder] = emb.export(run.run, layers=[pair[0]], dims=[pair[1]], out=tmp_path / f"{pair}")
        [scores] = [each for each in run.scores if (each.layers, each.dim) == pair]
        assert scores.parameters == sum(each.numel() for each in load_model(folder).parameters())
        assert scores.milliseconds > 0


def test_documents_first_then_queries(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    original = one_student.Training.run

    def counted(self: Any) -> None:
        begun.append((len(self.train.rows), self.total))
        original(self)

    monkeypatch.setattr(one_student.Training, "run", counted)
    two_stages = {"training.document_epochs": 2, "training.epochs": 1, "training.max_steps": None}
    found = distil(place, tmp_path / "run", layers=0, overrides=two_stages)
    (documents, _), (queries, _) = begun
    assert documents == len((place / "docs.jsonl").read_text().splitlines())
    assert queries == len(read_texts(load_recipe(str(found.run / "recipe.yaml"), {}))[1].train)
    assert not (found.run / "documents").exists()
    plain = distil(place, tmp_path / "plain", layers=0, overrides=two_stages | {"training.document_epochs": 0})
    first, second = (load_model(each.student).encoder.embedding.weight for each in (found, plain))
    assert not torch.equal(first, second)


def test_the_recipe_of_a_run_makes_its_students_again(run: Any, place: Path, tmp_path: Path) -> None:
    again = emb.distill(recipe=run.run / "recipe.yaml", out=tmp_path / "again")
    assert [each.retention for each in again.scores] == [each.retention for each in run.scores]


def test_the_depth_of_models_that_say_it_elsewhere(run: Any, place: Path, tmp_path: Path) -> None:
    assert depth_of(run.run / "static" / "student") == 0
    older = Path(shutil.copytree(place / "teacher", tmp_path / "older"))
    modules = json.loads((older / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (older / "modules.json").write_text(json.dumps(modules))
    (older / "0_Transformer").mkdir()
    (older / "config.json").rename(older / "0_Transformer" / "config.json")
    assert depth_of(older) == 4


def test_pairs_of_no_layers_alone_train_as_long_as_a_static_encoder() -> None:
    assert "epochs" not in query_recipe(**{"pairs": [[0, 16]]}).training.model_fields_set
    assert with_epochs(query_recipe(**{"pairs": [[0, 16]]}), 10).training.epochs == 3  # the loop's own take over


def test_small_corpora_are_read_oftener(run: Any) -> None:
    recipe = query_recipe(**{"pairs": [[2, 16]]})
    epochs = {texts: with_epochs(recipe, texts).training.epochs for texts in (10, 54_167, 65_000, 162_500, 10**6)}
    assert epochs == {10: 6, 54_167: 6, 65_000: 5, 162_500: 2, 10**6: 2}
    told = query_recipe(**{"pairs": [[2, 16]], "training.epochs": 9})
    assert with_epochs(told, 10).training.epochs == 9
    assert load_recipe(str(run.run / "recipe.yaml"), {}).training.epochs == 6


def test_only_query_encoders_are_read_so_often() -> None:
    plain = load_recipe(None, {"teacher": "t", "student.source": "teacher", "student.layers": 2})
    assert with_epochs(plain, 10) is plain


def test_the_command_s_json_names_the_rotated_teacher(run: Any) -> None:
    told = CliRunner().invoke(cli, ["distill", "--resume", "--out", str(run.run), "--json"])
    assert json.loads(told.stdout)["teacher"] == str(run.teacher)


def test_the_card_says_where_the_rotated_teacher_is(run: Any, tmp_path: Path) -> None:
    [folder] = emb.export(run.run, layers=[2], dims=[16], out=tmp_path / "out")
    told = CliRunner().invoke(cli, ["card", str(folder)])
    assert told.exit_code == 0, told.output
    assert "is the folder `teacher` of the run" in (folder / "README.md").read_text(encoding="utf-8")
