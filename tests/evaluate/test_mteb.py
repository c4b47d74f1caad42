"""mteb's own package on our encoders and ours on its tasks: both protocols, its files, and figures that agree."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mteb_sets import tiny_task

import emb
from emb.artifact.fingerprints import fingerprint, weights_hash
from emb.cli import cli
from emb.commands import console
from emb.data.evaluation_sets import read_tasks
from emb.errors import DataError, UsageError
from emb.evaluate.evaluate import evaluate
from emb.evaluate.mteb_files import fill
from emb.evaluate.mteb_tasks import find_tasks
from emb.evaluate.scores import Evaluation
from emb.runtime.encoder import load

mteb = pytest.importorskip("mteb", reason="pip install 'emb-distill[mteb]'")
pytestmark = pytest.mark.interop
ROUNDED = 6e-4  # of 100: mteb rounds nDCG to five decimals


def _filled(kind: str, sets: dict[str, Path]) -> Any:
    task = tiny_task(kind)
    fill(task, str(sets[kind]), None)
    return task


def _run(model: Any, task: Any) -> float:
    [result] = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results
    return 100 * float(result.get_score())


def _values(found: Evaluation, **wanted: Any) -> list[float]:
    return [
        score.value for score in found.scores if all(getattr(score, name) == value for name, value in wanted.items())
    ]


@pytest.mark.parametrize("kind", ["search", "pairs", "labels"])
def test_mteb_finds_what_we_find(kind: str, bert_folder: Path, sets: dict[str, Path]) -> None:
    model = emb.mteb_model(bert_folder, dim=16)
    assert isinstance(model, mteb.EncoderProtocol)
    assert not isinstance(model, mteb.SearchProtocol)
    ours = evaluate([bert_folder], [sets[kind]], dims=[16]).scores
    assert _run(model, _filled(kind, sets)) == pytest.approx(ours[0].value, abs=ROUNDED)


def test_every_figure_of_a_classifier_is_mtebs(bert_folder: Path, sets: dict[str, Path]) -> None:
    task = _filled("labels", sets)
    [result] = mteb.evaluate(emb.mteb_model(bert_folder), task, cache=None, co2_tracker=False).task_results
    [theirs] = result.scores["test"]
    ours = {score.metric: score.value for score in evaluate([bert_folder], [sets["labels"]], dims=[32]).scores}
    assert ours == pytest.approx(
        {"accuracy": 100 * theirs["accuracy"], "F1": 100 * theirs["f1"], "AP": 100 * theirs["ap"]}
    )


def test_a_bundle_can_only_search(bundle: Path, sets: dict[str, Path]) -> None:
    model = emb.mteb_model(bundle)
    assert isinstance(model, mteb.SearchProtocol)
    assert not isinstance(model, mteb.EncoderProtocol)
    both = load(bundle)
    [task] = read_tasks([sets["search"]])
    queries, documents = task.sides
    ours = task.score(both.encode_query(queries), both.encode_document(documents))
    assert _run(model, _filled("search", sets)) == pytest.approx(ours, abs=ROUNDED)
    with pytest.raises(TypeError, match="Encoder"):
        _run(model, _filled("pairs", sets))


def test_candidates_are_ranked_alone(bundle: Path, sets: dict[str, Path]) -> None:
    """A task of reranking: only the documents that it names are put in order."""
    task = _filled("search", sets)
    split = task.dataset["default"]["test"]
    split["top_ranked"] = {query: ["d11", f"d{query[1:]}"] for query in split["queries"]["id"]}
    found: dict[str, dict[str, float]] = {}
    model: Any = emb.mteb_model(bundle)
    search = model.search
    model.search = lambda queries, **options: found.update(search(queries, **options)) or found
    _run(model, task)
    assert {query: set(documents) for query, documents in found.items()} == {
        query: {"d11", f"d{query[1:]}"} for query in split["queries"]["id"]
    }


def test_a_student_searches_its_teachers_documents(student: Path, bert_folder: Path, sets: dict[str, Path]) -> None:
    task = _filled("search", sets)
    found = evaluate([student], [sets["search"]], tasks=[task], teacher=bert_folder, dims=[16], layers=[3])
    for side in ("symmetric", "asymmetric"):
        ours, theirs = _values(found, side=side, model="small")
        assert theirs == pytest.approx(ours, abs=ROUNDED)
    symmetric, asymmetric = (_values(found, side=side, model="small")[0] for side in ("symmetric", "asymmetric"))
    assert symmetric != asymmetric
    assert _run(emb.mteb_model(student, doc=bert_folder, dim=16), task) == pytest.approx(asymmetric, abs=ROUNDED)
    assert emb.mteb_model(student, doc=bert_folder).mteb_model_meta.embed_dim == 32, "it has 48, its teacher 32"
    assert not isinstance(emb.mteb_model(student), mteb.SearchProtocol)


def test_a_pair_and_its_bundle_are_one_system(bert_folder: Path, student: Path, sets: dict[str, Path]) -> None:
    [export] = emb.export(student, layers=[3], dims=[32], out=student.parent / "3x32")
    pair = emb.mteb_model(export, doc=bert_folder)
    assert isinstance(pair, mteb.SearchProtocol)
    found = evaluate([export], [sets["search"]], teacher=bert_folder, dims=[32], side="asymmetric")
    assert _run(pair, _filled("search", sets)) == pytest.approx(_values(found, side="asymmetric")[0], abs=ROUNDED)
    meta = pair.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.framework, meta.adapted_from) == (
        "emb/3x32-on-tiny-bert",
        32,
        ["ONNX"],
        "tiny-bert",
    )
    assert meta.revision == f"{fingerprint(export, 'onnx/model.onnx')[:12]}-{weights_hash(bert_folder)[:12]}"
    with pytest.raises(UsageError, match=r"nothing says .*\n.*emb bundle --query .*tiny-bert"):
        emb.mteb_model(bert_folder, doc=bert_folder)


def test_what_would_change_vectors_is_refused(bert_folder: Path, bundle: Path, sets: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="encode_kwargs precision"):
        mteb.evaluate(
            emb.mteb_model(bert_folder), _filled("pairs", sets), cache=None, encode_kwargs={"precision": "int8"}
        )
    with pytest.raises(UsageError, match="leave doc out"):
        emb.mteb_model(bundle, doc=bert_folder)
    with pytest.raises(UsageError, match="dim 33: there are 32"):
        emb.mteb_model(bert_folder, dim=33)


def test_a_bundle_is_scored_as_it_searches(bundle: Path, sets: dict[str, Path]) -> None:
    found = evaluate([bundle], [sets["search"]], tasks=[_filled("search", sets)], dims=[32])
    ours, theirs = _values(found, model="both")
    assert theirs == pytest.approx(ours, abs=ROUNDED)


def test_mteb_reads_what_is_written(student: Path, bert_folder: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    found = evaluate(
        [student],
        [sets["search"], sets["pairs"], sets["labels"]],
        tasks=[_filled("search", sets)],
        teacher=bert_folder,
        dims=[16],
        layers=[2],
        mteb_json=tmp_path / "out",
        languages=["eng-Latn"],
    )
    results = mteb.ResultCache(tmp_path / "out").load_results()
    assert {each.model_name for each in results.model_results} == {
        "emb/small-2x16",
        "emb/small-2x16-on-tiny-bert",
        "emb/tiny-bert-3x16",
    }
    [asymmetric] = [each for each in results.model_results if each.model_name.endswith("-on-tiny-bert")]
    scores = {each.task_name: each for each in asymmetric.task_results}
    assert set(scores) == {"tinysearch", "tinypairs", "tinylabels", "TinySearch"}
    for name, result in scores.items():
        ours = _values(found, task=name, side="asymmetric")
        assert 100 * result.get_score() == pytest.approx(ours[0], abs=1e-3)
        assert result.get_score(languages=["eng"]) == result.get_score(), "eng-Latn"
        assert (result.mteb_version, list(result.scores)) == (mteb.__version__, ["test"])
    [labels] = scores["tinylabels"].scores["test"]
    assert {"accuracy", "f1", "ap"} <= set(labels)
    assert labels["main_score"] == labels["accuracy"]
    assert [labels["evaluator"].split()[0], "evaluator" in scores["TinySearch"].scores["test"][0]] == ["emb", False]
    [task] = read_tasks([sets["pairs"]])
    assert scores["tinypairs"].dataset_revision == task.fingerprint
    path = tmp_path / "out" / "results" / "emb__small-2x16-on-tiny-bert"
    meta = json.loads(next(path.rglob("model_meta.json")).read_text(encoding="utf-8"))
    assert (meta["embed_dim"], meta["adapted_from"], meta["max_tokens"]) == (16, "tiny-bert", 64)
    assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]{12}", meta["revision"])
    assert mteb.TaskResult.from_disk(next(path.rglob("tinysearch.json"))).main_score > 0


def test_a_task_without_queries_has_one_side(
    student: Path, bert_folder: Path, sets: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate([student], tasks=[_filled("pairs", sets)], teacher=bert_folder, dims=[16], layers=[3])
    assert {(score.model, score.side) for score in found.scores} == {("small", "symmetric"), ("tiny-bert", "symmetric")}
    assert "TinyPairs: has no queries and documents" in " ".join(capsys.readouterr().err.split())


def test_a_student_is_run_once_for_all_exits_and_dims(
    student: Path, sets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from emb.evaluate.subjects import TorchSubject

    asked: list[str] = []
    original = TorchSubject.vectors

    def counted(self: TorchSubject, texts: Any, kind: str) -> Any:
        asked.append(kind)
        return original(self, texts, kind)

    monkeypatch.setattr(TorchSubject, "vectors", counted)
    found = evaluate([student], tasks=[_filled("search", sets)], dims=[16, 32])
    assert sorted(asked) == ["document", "query"]
    assert len({(score.layers, score.dim, score.value) for score in found.scores}) == 6


def test_tasks_that_are_none(bert_folder: Path, sets: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(bert_folder)]
    for more, said in (
        (["--task", "scifacts"], "error: --task scifacts: mteb has no task of that name\n  did you mean SciFact"),
        (["--task", "STS12", "--task", "STS12"], "named twice"),
        (["--task", f"SciFact={sets['pairs']}"], "--task SciFact: is Retrieval, and tinypairs is scored by Spearman"),
        (["--task", "CIFAR10Clustering"], "is of image"),
        (["--task", f"STS17={sets['pairs']}"], "--task STS17: has a set for each of"),
        (["--task", f"SciFact={sets['search']}", "--split", "dev"], "--split dev: SciFact is scored on test"),
        (["--task", "SciFact", "--mteb-json", "x", "--language", "xx-Yyyy"], "--language xx-Yyyy"),
        (["--task", "SciFact"], "data set mteb/scifact could not be fetched ("),
        ([], "nothing to evaluate on"),
    ):
        assert console.run(cli, [*words, *more]) == 2
        assert said in " ".join(capsys.readouterr().err.replace("\n  ", "\n_").split()).replace("_", "\n  ").replace(
            " \n", "\n"
        ), said


def test_the_data_of_a_task_come_from_files(bert_folder: Path, sets: dict[str, Path]) -> None:
    tasks = [
        f"SciFact={sets['search']}",
        f"STSBenchmark={sets['pairs']}",
        f"Banking77Classification={sets['labels']}",
    ]
    found = evaluate([bert_folder], list(sets.values()), tasks=tasks, dims=[32])
    for ours, theirs in (
        ("tinysearch", "SciFact"),
        ("tinypairs", "STSBenchmark"),
        ("tinylabels", "Banking77Classification"),
    ):
        assert _values(found, task=theirs)[0] == pytest.approx(_values(found, task=ours)[0], abs=ROUNDED)
        assert found.fingerprints["data"][ours] == found.fingerprints["data"][theirs]
    [filled] = find_tasks([tasks[1]])
    assert filled.task.data_loaded
    with pytest.raises(DataError, match="no such file"):
        find_tasks([f"SciFact={sets['search']}-gone"])


def test_measures_are_the_models_own(bert_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert_folder, tmp_path / "dots")
    path = folder / "config_sentence_transformers.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"similarity_fn_name": "euclidean"}), encoding="utf-8")
    model: Any = emb.mteb_model(folder)
    assert model.mteb_model_meta.similarity_fn_name.value == "euclidean"
    one, other = np.asarray([[0, 0], [3, 4]]), np.asarray([[3, 4], [3, 4]])
    assert model.similarity(one, other).tolist() == [[-5, -5], [0, 0]]
    assert model.similarity_pairwise(one, other).tolist() == [-5, 0]
