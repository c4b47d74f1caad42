"""What a run expects before it begins, and how that is told beside the result."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from query_runs import distil

import emb
from emb.artifact.manifest import Manifest, PairScores
from emb.cli import cli
from emb.data.corpus import Corpus, Text
from emb.data.pseudo_queries import PseudoQuery
from emb.distill import forecast as forecasting
from emb.distill import retention
from emb.distill.preparation import read_texts
from emb.distill.retention import KnownItems, with_forecast
from emb.recipes.recipe import load_recipe
from emb.teachers.cache import in_memory
from emb.validate.training_charts import grids

pytestmark = pytest.mark.usefixtures("query_cache")


def _score(cosine: float, retention: float | None = None) -> PairScores:
    return PairScores(2, 16, cosine, 0.5, retention)


def test_a_power_law_is_found_and_followed() -> None:
    error = {steps: 0.4 * steps**-0.3 for steps in (20, 80, 2000)}
    found = forecasting.extrapolated(_score(1 - error[20]), _score(1 - error[80]), (20, 80), 2000)
    assert found.cosine == pytest.approx(1 - error[2000])


def test_the_search_that_is_lost_has_a_power_of_its_own() -> None:
    lost = {steps: 0.5 * steps**-0.2 for steps in (20, 80, 2000)}
    found = forecasting.extrapolated(_score(0.6, 1 - lost[20]), _score(0.9, 1 - lost[80]), (20, 80), 2000)
    assert found.retention == pytest.approx(1 - lost[2000])


def test_nothing_is_expected_to_get_worse_or_better_than_all() -> None:
    fallen = forecasting.extrapolated(_score(0.8, 0.9), _score(0.7, 0.8), (20, 80), 4000)
    assert (fallen.cosine, fallen.retention) == (0.7, 0.8)
    assert forecasting.extrapolated(_score(0.5, 0.5), _score(0.8, 0.99), (20, 80), 10**9).retention == pytest.approx(
        1, abs=1e-4
    )
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
    source = read_texts(recipe)[1]
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
    assert len(forecasting.sample_of(read_texts(recipe)[1]).corpus) == 20


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
    found = distil(place, tmp_path / "run", rotate=False)
    assert "expected to keep of the teacher's search" in " ".join(capsys.readouterr().err.split())
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
    plain = distil(place, tmp_path / "plain", rotate=False)
    found = distil(place, tmp_path / "none", student=str(plain.student), dry_run=True)
    assert min(each.cosine for each in found.scores) > 0.5


def test_the_sample_is_rotated_to_the_texts_that_are_trained_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    original = forecasting.rotation_for
    monkeypatch.setattr(
        forecasting,
        "rotation_for",
        lambda recipe, teacher, found: fitted.append(len(found.vectors)) or original(recipe, teacher, found),
    )
    trained: list[int] = []
    prepared = forecasting.prepare
    monkeypatch.setattr(
        forecasting,
        "prepare",
        lambda *given: trained.append(len((found := prepared(*given)).train)) or found,
    )
    distil(place, tmp_path / "run", dry_run=True)
    assert fitted == trained
    assert trained[0] != 140, "as many as there are documents: the test tells nothing"


@pytest.mark.parametrize(("count", "beside"), [(50, 30), (10, 0), (10**6, 96)])
def test_the_sample_s_search_is_as_crowded_as_the_run_s(count: int, beside: int) -> None:
    random = np.random.default_rng(0)
    texts, documents = [Text(f"text {n}") for n in range(96)], random.normal(size=(20, 8)).astype(np.float32)
    vectors = random.normal(size=(96, 8)).astype(np.float32)
    given = SimpleNamespace(
        train=Corpus(texts[:60]),
        held_out=Corpus(texts[60:]),
        targets=SimpleNamespace(train=in_memory(vectors[:60]), held_out=in_memory(vectors[60:])),
    )
    cut = [PseudoQuery(item.text, row % 20) for row, item in enumerate(texts) if row % 2]
    found = forecasting.crowded(KnownItems([0], [1], documents), given, cut, count)
    assert found.rivals is not None
    assert len(found.rivals) == len(found.owners) == beside
    assert np.array_equal(found.documents, documents)
    for vector, owner in zip(found.rivals, found.owners, strict=True):
        [row] = np.flatnonzero((np.abs(vectors - vector) < 1e-2).all(1))
        assert owner == (row % 20 if row % 2 else -1)
    field, owners = found.field()
    assert np.array_equal(field, np.concatenate([documents, found.rivals]))
    assert list(owners) == [*range(20), *found.owners]


def test_a_forecast_searches_among_as_many_as_there_are_documents(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "DOCUMENTS", 60)
    searches: list[KnownItems] = []
    original = forecasting.planned
    monkeypatch.setattr(
        forecasting,
        "planned",
        lambda recipe, given, *rest: searches.append(given.search) or original(recipe, given, *rest),
    )
    found = distil(place, tmp_path / "run", dry_run=True)
    assert {(len(each.documents), len(each.field()[0])) for each in searches} == {(60, 140)}
    [search] = {id(each): each for each in searches}.values()
    assert search.rivals is not None
    share = (np.square(search.rivals).sum(0) / np.square(search.rivals).sum())[:16].sum()
    assert share > 0.8, "the rivals are not rotated"
    assert found.forecast is not None
