"""A whole run for documents: a rotated teacher, a static encoder and a layered student beside each other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES, tiny_bert

import emb
from emb.artifact.manifest import Manifest, PairScores
from emb.artifact.runs import run_status
from emb.cli import cli
from emb.data.documents import Document
from emb.distill import forecast as forecasting
from emb.distill import one_student, retention, rotated_teacher, which_layers
from emb.distill import run as room
from emb.distill.language import warn_of_shards
from emb.distill.preparation import prepare, read_texts
from emb.distill.query_encoder import exits_of, parts_of, with_query_defaults
from emb.distill.retention import with_forecast
from emb.distill.student import depth_of
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import load_model
from emb.recipes.recipe import Recipe, StudentRecipe, load_recipe
from emb.teachers.cache import row_key
from emb.teachers.capture import recorded
from emb.teachers.registry import resolve
from emb.validate.training_charts import grids

FEW = {"training.max_steps": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, documents and general texts."""
    folder = tmp_path_factory.mktemp("place")
    tiny_bert(folder / "teacher", layers=4)
    rows = [{"title": a.split()[0], "text": f"{a} {b}"} for a in SENTENCES for b in SENTENCES[::3]]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "general.txt").write_text("\n".join(f"{a} {b}" for a in SENTENCES for b in SENTENCES[::5]))
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMB_CACHE", str(place / "cache"))


def _distil(place: Path, out: Path, **more: Any) -> Any:
    overrides = FEW | more.pop("overrides", {})
    return emb.distill(str(place / "teacher"), documents=[place / "docs.jsonl"], out=out, overrides=overrides, **more)


@pytest.fixture(scope="module")
def run(place: Path) -> Any:
    """A run with nothing said but the teacher and the documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMB_CACHE", str(place / "cache"))
        return _distil(place, place / "run")


def _recipe(**values: Any) -> Recipe:
    return with_query_defaults(load_recipe(None, {"teacher": "t", "data.documents": ["d"], **values}), 12)


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
    static, student = parts_of(_recipe())
    assert static is not None
    assert (static.student.layers, student.student.layers) == (0, 4)
    assert parts_of(_recipe(**{"pairs": [[2, 16]]}))[0] is None
    assert parts_of(_recipe(**{"student.source": "mine"}))[0] is None
    assert parts_of(_recipe(**{"student.layers": 0}))[0] is None
    assert parts_of(load_recipe(None, {"teacher": "t"}))[0] is None
    only = _recipe(**{"pairs": [[0, 16]]})
    assert (only.student.layers, parts_of(only)[0]) == (0, None)
    static, student = parts_of(_recipe(**{"pairs": [[0, 16], [2, 32]]}))
    assert static is not None
    assert (static.pairs, student.pairs) == ([(0, 16)], [(2, 32)])


def test_training_of_layers_says_nothing_of_rows() -> None:
    static, _ = parts_of(_recipe(**{"training.lr": 3e-4, "training.seed": 5, "training.max_steps": 9}))
    assert static is not None
    assert static.training.model_fields_set.isdisjoint({"lr", "epochs"})
    assert (static.training.seed, static.training.max_steps) == (5, 9)


def test_the_static_encoder_trains_as_one_alone(run: Any, place: Path, tmp_path: Path) -> None:
    alone = _distil(place, tmp_path / "alone", layers=0)
    ours, theirs = (load_model(folder / "student") for folder in (run.run / "static", alone.run))
    assert torch.equal(ours.encoder.embedding.weight, theirs.encoder.embedding.weight)


def test_stopped_behind_the_static_encoder_a_run_goes_on(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, trained = room.train_student, []

    def stopping(plan: Any, *rest: Any) -> Any:
        trained.append(plan.student.layers)
        if plan.student.layers and len(trained) == 2:
            raise KeyboardInterrupt
        return original(plan, *rest)

    monkeypatch.setattr(room, "train_student", stopping)
    with pytest.raises(KeyboardInterrupt):
        _distil(place, tmp_path / "run")
    again = emb.distill(resume=True, out=tmp_path / "run")
    assert trained == [0, 4, 4], "the finished encoder was trained again, or the other not"
    assert [each.retention for each in again.scores] == [each.retention for each in run.scores]
    assert [each.layers for each in emb.distill(resume=True, out=tmp_path / "run").scores] == [
        each.layers for each in run.scores
    ]


def test_overwriting_leaves_nothing_of_the_run_before(run: Any, place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    found = _distil(place, out, overwrite=True, rotate=False, overrides={"pairs": [[2, 16]]})
    assert {each.layers for each in found.scores} == {2, 4}
    assert not (out / "static").exists()
    assert not (out / "teacher").exists()
    assert found.teacher is None


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
    _distil(place, tmp_path / "b")
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
    assert _distil(place, tmp_path / "no", rotate=False).teacher is None
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
    assert f"--model {run.teacher} --kind document" in told.stdout


def test_costs_are_those_of_the_pair(run: Any, tmp_path: Path) -> None:
    for pair in ((0, 16), (2, 16), (4, 32)):
        [folder] = emb.export(run.run, layers=[pair[0]], dims=[pair[1]], out=tmp_path / f"{pair}")
        [scores] = [each for each in run.scores if (each.layers, each.dim) == pair]
        assert scores.parameters == sum(each.numel() for each in load_model(folder).parameters())
        assert scores.milliseconds > 0


# The forecast


def _score(cosine: float, retention: float | None = None) -> PairScores:
    return PairScores(2, 16, cosine, 0.5, retention)


def test_a_power_law_is_found_and_followed() -> None:
    error = {steps: 0.4 * steps**-0.3 for steps in (20, 80, 2000)}
    found = forecasting.extrapolated(_score(1 - error[20]), _score(1 - error[80]), (20, 80), 2000)
    assert found.cosine == pytest.approx(1 - error[2000])


def test_the_search_that_is_kept_follows_the_cosine() -> None:
    found = forecasting.extrapolated(_score(0.6, 0.7), _score(0.7, 0.8), (20, 80), 320)
    assert found.retention == pytest.approx(0.8 + (found.cosine - 0.7))


def test_nothing_is_expected_to_get_worse_or_better_than_all() -> None:
    fallen = forecasting.extrapolated(_score(0.8, 0.9), _score(0.7, 0.8), (20, 80), 4000)
    assert (fallen.cosine, fallen.retention) == (0.7, 0.8)
    assert forecasting.extrapolated(_score(0.5, 0.5), _score(0.8, 0.99), (20, 80), 10**9).retention == 1.0
    assert forecasting.extrapolated(_score(0.5, 1.0), _score(0.8, 1.05), (20, 80), 10**9).retention == 1.0
    steep = forecasting.extrapolated(_score(0.1), _score(0.9), (20, 80), 320)
    assert steep.cosine == pytest.approx(0.95), "an error was expected to fall faster than by the root"
    assert forecasting.extrapolated(_score(0.6), _score(0.7), (20, 80), 40).cosine == 0.7


def test_a_sample_is_whole_documents_and_its_share_of_the_rest(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "DOCUMENTS", 10)
    recipe = load_recipe(
        None,
        {
            "teacher": "t",
            "data.documents": [str(place / "docs.jsonl")],
            "data.sources": [str(place / "general.txt")],
            "data.mix": 0.2,
        },
    )
    source = read_texts(recipe)
    sample = forecasting.sample_of(source)
    assert len(sample.documents) == 10
    whole = {(each.text, source.documents[each.document]) for each in source.queries}
    assert {(each.text, sample.documents[each.document]) for each in sample.queries} <= whole
    own = {each.text for each in source.queries}
    shares = [sum(item.text not in own for item in each.corpus.texts) / len(each.corpus) for each in (sample, source)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert shares[0] > 0
    assert {*sample.train.texts, *sample.held_out.texts} == set(sample.corpus.texts)
    assert {item.text for item in sample.held_out.texts} <= own
    assert len(sample.held_out) == len(sample.queries) // 2
    assert forecasting.is_worth_it(source)
    monkeypatch.setattr(forecasting, "DOCUMENTS", len(source.documents))
    assert not forecasting.is_worth_it(source)


def test_of_texts_alone_a_sample_is_some(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "TEXTS", 20)
    recipe = load_recipe(None, {"teacher": "t", "data.sources": [str(place / "general.txt")]})
    assert len(forecasting.sample_of(read_texts(recipe)).corpus) == 20


def test_a_dry_run_leaves_nothing_but_a_forecast(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "DOCUMENTS", 30)
    monkeypatch.setattr(forecasting, "STEPS", 4)
    arguments = ["distill", "--teacher", str(place / "teacher"), "--for", str(place / "docs.jsonl"), "--dry-run"]
    told = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "run"), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert {each["layers"] for each in found["scores"]} == {0, 1, 2, 4}
    assert set(found["seconds"]) == {"teacher", "static encoder", "student"}
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert not list(tmp_path.iterdir())
    assert "time here" in CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "run")]).stdout


def test_a_run_says_first_what_it_expects_and_keeps_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecasting, "DOCUMENTS", 35)
    monkeypatch.setattr(retention, "ENOUGH", 5)
    found = _distil(place, tmp_path / "run", rotate=False)
    assert "expected kept of the search" in " ".join(capsys.readouterr().err.split())
    assert found.forecast is not None
    expected = {each.pair: each.retention for each in found.forecast.scores}
    assert {each.pair: each.forecast for each in found.scores} == expected
    assert [each.forecast for each in Manifest.load(found.student).pairs] == [
        expected[each.pair] for each in found.scores if each.layers
    ]


def test_a_pair_that_nobody_expected_has_no_forecast() -> None:
    other = PairScores(4, 16, 0.9, 0.5, 0.9)
    first, second = with_forecast([_score(0.7, 0.8), other], [_score(0.6, 0.75)])
    assert (first.forecast, second.forecast) == (0.75, None)
    assert first.retention == 0.8


def test_documents_first_then_queries(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    original = one_student.Training.run

    def counted(self: Any) -> None:
        begun.append((len(self.train.rows), self.total))
        original(self)

    monkeypatch.setattr(one_student.Training, "run", counted)
    two_stages = {"training.document_epochs": 2, "training.epochs": 1, "training.max_steps": None}
    found = _distil(place, tmp_path / "run", layers=0, overrides=two_stages)
    (documents, _), (queries, _) = begun
    assert documents == len((place / "docs.jsonl").read_text().splitlines())
    assert queries == len(read_texts(load_recipe(str(found.run / "recipe.yaml"), {})).train)
    assert not (found.run / "documents").exists()
    plain = _distil(place, tmp_path / "plain", layers=0, overrides=two_stages | {"training.document_epochs": 0})
    first, second = (load_model(each.student).encoder.embedding.weight for each in (found, plain))
    assert not torch.equal(first, second)


def test_a_run_stopped_between_the_stages_ends_with_the_same_weights(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_stages = {"training.document_epochs": 1, "training.max_steps": 3}
    whole = _distil(place, tmp_path / "whole", layers=0, overrides=two_stages)
    original, runs = one_student.Training.run, []

    def stopping(self: Any) -> None:
        runs.append(self)
        if len(runs) == 2:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(one_student.Training, "run", stopping)
        with pytest.raises(KeyboardInterrupt):
            _distil(place, tmp_path / "run", layers=0, overrides=two_stages)
    again = emb.distill(resume=True, out=tmp_path / "run")
    first, second = (load_model(each.student).encoder.embedding.weight for each in (whole, again))
    assert torch.equal(first, second)


# Which layers stay


def test_auto_keeps_the_choice_that_is_nearest_before_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"spread": 0.5, "ends": 0.7, "first": 0.6}
    monkeypatch.setattr(which_layers, "_cosine", lambda recipe, name, *_: told[name])
    chosen = which_layers.with_chosen_layers(_recipe(**{"student.keep": "auto"}), None, False)  # type: ignore[arg-type]
    assert chosen.student.keep == "ends"
    assert "ends is taken" in " ".join(capsys.readouterr().err.split())
    told["spread"] = 0.7
    again = which_layers.with_chosen_layers(_recipe(**{"student.keep": "auto"}), None, False)  # type: ignore[arg-type]
    assert again.student.keep == "spread", "of equals the first"
    named = _recipe(**{"student.keep": "first"})
    assert which_layers.with_chosen_layers(named, None, False) == named  # type: ignore[arg-type]


def test_a_run_with_auto_remembers_what_it_chose(place: Path, tmp_path: Path) -> None:
    found = _distil(place, tmp_path / "run", layers=2, rotate=False, overrides={"student.keep": "auto"})
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
    given = prepare(recipe, teacher, read_texts(recipe), None, False)
    whole = recipe.model_copy(update={"student": StudentRecipe(source="teacher", layers=4, keep="auto")})
    one = recipe.model_copy(update={"student": StudentRecipe(source="teacher", layers=1, keep="auto")})
    assert which_layers._cosine(whole, "first", given, False) > 0.99, "all layers are the teacher itself"
    assert which_layers._cosine(one, "first", given, False) < which_layers._cosine(whole, "first", given, False)


def test_the_report_shows_the_forecast_beside_the_result(run: Any, tmp_path: Path) -> None:
    place = Path(shutil.copytree(run.run, tmp_path / "run"))
    manifest = Manifest.load(place / "student")
    manifest.pairs = [replace(each, forecast=0.123) for each in manifest.pairs]
    manifest.write(place / "student")
    page = grids(place / "exports" / "2x16", manifest, SimpleNamespace(layers=2, dim=16))  # type: ignore[arg-type]
    assert "Kept of the teacher" in page
    assert "0.123" in page
    static = next(each.retention for each in run.scores if (each.layers, each.dim) == (0, 16))
    assert f"{static:.3f}" in page, "the static encoder is not among the exits"


# A language that the teacher does not know


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


# What is stopped, edited or given wrongly on the way


def _stopped(place: Path, out: Path, monkeypatch: pytest.MonkeyPatch, where: str, **more: Any) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, where, stop)
        with pytest.raises(KeyboardInterrupt):
            _distil(place, out, **more)


def test_documents_edited_meanwhile_leave_the_rotation_as_it_was(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    own = Path(shutil.copytree(place, tmp_path / "place"))
    _distil(own, tmp_path / "before", rotate=False)  # plain vectors are cached, to be moved
    _stopped(own, tmp_path / "run", monkeypatch, "train_student")
    lines = (own / "docs.jsonl").read_text().splitlines(keepends=True)
    (own / "docs.jsonl").write_text("".join(lines[:100]))
    found = emb.distill(resume=True, out=tmp_path / "run")
    vectors, turned = (SentenceTransformer(str(f)).encode(SENTENCES) for f in (found.student, found.run / "teacher"))
    assert (vectors * turned).sum(1).mean() > 0.9, "the student is in the space of another rotation"


@pytest.mark.parametrize("where", ["_begin", "rotated", "prepare"])
def test_stopped_on_the_way_to_the_rotated_teacher(
    where: str, run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped(place, tmp_path / "run", monkeypatch, where)
    begun = where != "_begin"
    again = emb.distill(resume=True, out=tmp_path / "run") if begun else _distil(place, tmp_path / "run")
    assert [each.retention for each in again.scores] == [each.retention for each in run.scores]
    assert not (tmp_path / "run" / ".rotated").exists()


def test_a_pair_beyond_the_teacher_costs_no_finished_run(run: Any, place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    for pairs, more in (([[0, 9999]], {}), ([[4, 16]], {"layers": 2})):
        with pytest.raises(UsageError, match="is beyond"):
            _distil(place, out, overwrite=True, overrides={"pairs": pairs}, **more)
        with pytest.raises(UsageError, match="is beyond"):
            _distil(place, tmp_path / "new", overrides={"pairs": pairs}, **more)
    assert (out / "student" / "emb.json").is_file()
    assert not (tmp_path / "new").exists()


def test_a_teacher_inside_the_run_is_not_written_over(run: Any, place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    with pytest.raises(ArtifactError, match="the teacher lies in there"):
        emb.distill(str(out / "teacher"), documents=[place / "docs.jsonl"], out=out, overwrite=True)
    assert (out / "teacher" / "modules.json").is_file()


def test_a_run_goes_on_in_the_space_it_began_in(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped(place, tmp_path / "run", monkeypatch, "train_student")
    for more in ({"rotate": False}, {"teacher": str(run.teacher)}):
        with pytest.raises(UsageError, match="in this run, not"):
            emb.distill(resume=True, out=tmp_path / "run", **more)
    with pytest.raises(UsageError, match="a forecast comes before"):
        emb.distill(resume=True, out=tmp_path / "run", dry_run=True)


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
    assert "epochs" not in _recipe(**{"pairs": [[0, 16]]}).training.model_fields_set
    assert _recipe(**{"pairs": [[2, 16]]}).training.epochs == 2


def test_no_more_steps_are_tried_than_the_run_has(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def pilot(recipe: Any, given: Any, steps: int, *_: Any) -> Any:
        tried.append(steps)
        return [], 0.5

    monkeypatch.setattr(forecasting, "_pilot", pilot)
    monkeypatch.setattr(forecasting, "DOCUMENTS", 30)
    for most, documents in ((3, 0), (3, 4)):
        steps = {"training.max_steps": most, "training.document_epochs": documents}
        found = emb.distill(
            str(place / "teacher"), documents=[place / "docs.jsonl"], dry_run=True, layers=2, overrides=steps
        )
        assert found.forecast is not None
        assert (found.forecast.seconds["student"] > 0.5 * most) == bool(documents)
    assert max(tried) == 3


def test_a_student_of_the_plain_space_is_fitted_anew_in_a_forecast(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "DOCUMENTS", 60)
    plain = _distil(place, tmp_path / "plain", rotate=False)
    found = _distil(place, tmp_path / "none", student=str(plain.student), dry_run=True)
    assert min(each.cosine for each in found.scores) > 0.5


def test_the_command_s_json_names_the_rotated_teacher(run: Any) -> None:
    told = CliRunner().invoke(cli, ["distill", "--resume", "--out", str(run.run), "--json"])
    assert json.loads(told.stdout)["teacher"] == str(run.teacher)


def test_a_rotation_that_fails_costs_no_finished_run(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ArtifactError("it gives other vectors")

    out = Path(shutil.copytree(run.run, tmp_path / "run"))
    monkeypatch.setattr(rotated_teacher, "write_rotated", fail)
    for place_of_run in (out, tmp_path / "new"):
        with pytest.raises(ArtifactError, match="other vectors"):
            _distil(place, place_of_run, overwrite=True)
    assert (out / "student" / "emb.json").is_file()
    assert not (out / ".rotated").exists()
    assert not (tmp_path / "new").exists()


def test_the_card_says_where_the_rotated_teacher_is(run: Any, tmp_path: Path) -> None:
    [folder] = emb.export(run.run, layers=[2], dims=[16], out=tmp_path / "out")
    told = CliRunner().invoke(cli, ["card", str(folder)])
    assert told.exit_code == 0, told.output
    assert "is the folder `teacher` of the run" in (folder / "README.md").read_text(encoding="utf-8")
