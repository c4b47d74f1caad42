"""`emb.distill` from teacher and texts to an artifact that others can load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilling import PAIRS, corpus_file, distil, finish, log, start, texts, weights
from tiny import QUERY_PROMPT, tiny_bert

import emb
from emb.artifact.manifest import LayerDimPair, Manifest
from emb.artifact.runs import latest_run, run_status
from emb.distill import one_student
from emb.distill import run as room
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.recipes.recipe import load_recipe

FEW = {"training.max_steps": 4}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus; all runs below it share one cache."""
    folder = tmp_path_factory.mktemp("distil")
    corpus_file(folder)
    return folder


@pytest.fixture(scope="module")
def finished(bert_folder: Path, workplace: Path) -> Any:
    """The result of a run with exits at one and two layers."""
    return distil(bert_folder, workplace / "corpus.jsonl", workplace / "finished")


@pytest.fixture(scope="module")
def from_qwen3(qwen3_folder: Path, workplace: Path) -> Any:
    """The result of a run from a Qwen3 teacher into its own first two layers."""
    return distil(qwen3_folder, workplace / "corpus.jsonl", workplace / "qwen3")


def _vectors(
    model: EmbeddingModel,
    given: list[str],
    kind: str = "document",
    side: str = "right",
    pair: LayerDimPair | None = None,
) -> np.ndarray[Any, Any]:
    rows = model.tokenizer().encode(given, model.spec.prompt(kind))
    found = np.zeros((len(given), pair.dim if pair else model.dim), np.float32)
    for batch, vectors in model.embed_ids(rows, pair, tokens_per_batch=256, side=side):
        found[batch] = vectors.numpy()
    return found


def _cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.mean(np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def test_run_folder(finished: Any) -> None:
    assert {path.name for path in finished.run.iterdir()} - {".lock"} == {
        "recipe.yaml",
        "run.json",
        "held-out.jsonl",
        "log.jsonl",
        "checkpoints",
        "student",
    }
    assert run_status(finished.run) == "finished"
    assert {record["step"] for record in log(finished.run)} == {0, 15, 20, 30, 40, 45}
    recipe = load_recipe(str(finished.run / "recipe.yaml"), {})
    assert [list(pair) for pair in recipe.pairs or []] == PAIRS
    assert recipe.training.train_token_embeddings is False
    assert recipe.student.layers == 2


def test_manifest_is_complete_and_its_hashes_hold(finished: Any, bert_folder: Path) -> None:
    manifest = Manifest.load(finished.student)
    manifest.verify(finished.student)
    assert (
        manifest.kind,
        manifest.layers,
        manifest.dim,
        manifest.pooling,
        manifest.normalize,
        manifest.max_length,
    ) == ("student", 2, 32, "mean", True, 64)
    assert manifest.pairs == finished.scores
    assert [(pair.layers, pair.dim) for pair in manifest.pairs] == [(1, 16), (2, 32)]
    assert all(0.9 < pair.cosine <= 1.0001 and 0 <= pair.overlap <= 1 for pair in manifest.pairs)
    lineage = manifest.lineage
    assert lineage.teacher.path == str(bert_folder)
    assert len(lineage.teacher.fingerprint) >= 16
    assert lineage.data.texts == 60
    assert len(lineage.data.hash) == 32
    assert lineage.seed == 0
    assert lineage.recipe["training"]["lr"] == 1e-3
    assert {"python", "torch", "transformers", "sentence-transformers", "numpy"} <= set(lineage.versions)
    written = {
        path.relative_to(finished.student).as_posix() for path in finished.student.rglob("*") if path.is_file()
    } - {"emb.json"}
    assert set(manifest.files) == written
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in written)


def test_sentence_transformers_gives_the_same_vectors(finished: Any) -> None:
    from sentence_transformers import SentenceTransformer

    student = SentenceTransformer(str(finished.student), device="cpu")
    expected, found = student.encode(texts(20)), _vectors(load_model(finished.student), texts(20))
    difference = np.abs(expected - found)
    print(f"max {difference.max():.2e}, mean {difference.mean():.2e}")
    assert difference.max() < 1e-5
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_exits_are_saved_and_close_to_the_teacher(finished: Any, bert_folder: Path) -> None:
    student = load_model(finished.student)
    assert student.exits == [1, 2]
    teacher = _vectors(load_model(bert_folder), texts(20))
    for layers, dim in PAIRS:
        found = _vectors(student, texts(20), pair=LayerDimPair(layers, dim))
        assert found.shape == (20, dim)
        assert _cosine(found, teacher[:, :dim]) > 0.99


def test_training_beats_its_start(bert_folder: Path, workplace: Path) -> None:
    more = {"training.lr": 5e-3, "training.max_steps": 90, "pairs": None}
    result = distil(
        bert_folder, workplace / "corpus.jsonl", workplace / "learns", student="fresh:1x16", layers=None, more=more
    )
    records = [record["cosine"] for record in log(result.run) if "cosine" in record]
    assert records[-1]["1x32"] > records[0]["1x32"]


def test_fresh_student_trains_its_token_table_and_a_cut_one_does_not(
    bert_folder: Path, workplace: Path, finished: Any
) -> None:
    def table(folder: Path) -> torch.Tensor:
        return load_model(folder).encoder.get_input_embeddings().weight.detach()

    assert torch.equal(table(finished.student), table(bert_folder))
    given = {"student": "fresh:1x16", "layers": None, "more": {**FEW, "pairs": None}}
    fresh = distil(bert_folder, workplace / "corpus.jsonl", workplace / "fresh", **given)
    start_ = distil(
        bert_folder,
        workplace / "corpus.jsonl",
        workplace / "fresh-start",
        **{**given, "more": {"training.epochs": 0, "pairs": None}},
    )
    assert not torch.equal(table(fresh.student), table(start_.student))
    cut = distil(
        bert_folder,
        workplace / "corpus.jsonl",
        workplace / "table",
        more={**FEW, "training.train_token_embeddings": True},
    )
    assert not torch.equal(table(cut.student), table(bert_folder))
    recorded = [
        load_recipe(str(result.run / "recipe.yaml"), {}).training.train_token_embeddings for result in (fresh, cut)
    ]
    assert recorded == [True, True]


def test_existing_student_is_continued(bert_folder: Path, workplace: Path, finished: Any) -> None:
    more = distil(
        bert_folder,
        workplace / "corpus.jsonl",
        workplace / "continued",
        student=finished.student,
        layers=None,
        more={**FEW, "training.lr": 1e-5, "training.lr_end": 0},
    )
    first = next(record["cosine"] for record in log(more.run) if "cosine" in record)
    before = {f"{score.layers}x{score.dim}": score.cosine for score in finished.scores}
    assert all(first[pair] > before[pair] - 0.01 for pair in before)


def test_qwen3_keeps_its_pooling_and_prompts(from_qwen3: Any, qwen3_folder: Path) -> None:
    manifest = Manifest.load(from_qwen3.student)
    assert (manifest.pooling, manifest.layers, manifest.dim) == ("lasttoken", 2, 32)
    assert manifest.prompts == {"query": QUERY_PROMPT, "document": ""}
    student, teacher = load_model(from_qwen3.student), load_model(qwen3_folder)
    for kind in ("query", "document"):
        assert _cosine(_vectors(student, texts(20), kind), _vectors(teacher, texts(20), kind)) > 0.6
    assert np.abs(_vectors(student, texts(20), "query") - _vectors(student, texts(20), "document")).max() > 0.01


def test_qwen3_student_does_not_mind_the_padding_side(from_qwen3: Any) -> None:
    from sentence_transformers import SentenceTransformer

    student = load_model(from_qwen3.student)
    left, right = (_vectors(student, texts(20), "query", side) for side in ("left", "right"))
    expected = SentenceTransformer(str(from_qwen3.student), device="cpu").encode(texts(20), prompt_name="query")
    assert np.abs(left - right).max() < 1e-5
    assert np.abs(expected - right).max() < 1e-5


def test_qwen3_student_is_exported(from_qwen3: Any, tmp_path: Path) -> None:
    [artifact] = emb.export(from_qwen3.run, layers=[1], dims=[16], out=tmp_path / "artifact")
    found = emb.load(artifact).encode(texts(10), kind="query")
    expected = _vectors(load_model(from_qwen3.student), texts(10), "query", pair=LayerDimPair(1, 16))
    assert np.abs(found - expected).max() < 1e-4


def test_bert_student_of_a_qwen3_teacher(qwen3_folder: Path, bert_folder: Path, workplace: Path) -> None:
    result = distil(
        qwen3_folder, workplace / "corpus.jsonl", workplace / "mixed", student=bert_folder, layers=2, more=FEW
    )
    manifest = Manifest.load(result.student)
    assert (manifest.pooling, manifest.layers, manifest.prompts["query"]) == ("mean", 2, QUERY_PROMPT)


def test_teacher_that_does_not_normalise_is_met_in_length_too(
    bert_folder: Path, workplace: Path, tmp_path: Path
) -> None:
    teacher = Path(shutil.copytree(bert_folder, tmp_path / "raw"))
    modules = json.loads((teacher / "modules.json").read_text(encoding="utf-8"))
    (teacher / "modules.json").write_text(
        json.dumps([module for module in modules if "Normalize" not in module["type"]]), encoding="utf-8"
    )
    result = distil(teacher, workplace / "corpus.jsonl", tmp_path / "run", more={"training.loss": "l2"})
    student = load_model(result.student)
    assert not student.spec.normalize
    assert not Manifest.load(result.student).normalize
    found, expected = _vectors(student, texts(20)), _vectors(load_model(teacher), texts(20))
    lengths = np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.linalg.norm(expected, axis=1).min() > 2
    assert np.abs(lengths - 1).max() < 0.1


def test_pairs_by_default_and_the_whole_student_always(bert_folder: Path, workplace: Path) -> None:
    result = distil(
        bert_folder, workplace / "corpus.jsonl", workplace / "default-pairs", layers=None, more={**FEW, "pairs": None}
    )
    assert [(score.layers, score.dim) for score in result.scores] == [(2, 16), (2, 32), (3, 16), (3, 32)]
    result = distil(bert_folder, workplace / "corpus.jsonl", workplace / "one-pair", more={**FEW, "pairs": [[1, 8]]})
    assert [(score.layers, score.dim) for score in result.scores] == [(1, 8), (2, 32)]


def test_student_reads_no_further_than_the_teacher_did(
    bert_folder: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = one_student.Training

    def noted(student: Any, train: Any, *rest: Any) -> Any:
        seen.append(max(map(len, train.rows)))
        return original(student, train, *rest)

    monkeypatch.setattr(one_student, "Training", noted)
    result = distil(
        bert_folder, workplace / "corpus.jsonl", workplace / "short", more={**FEW, "capture.max_length": 12}
    )
    assert seen == [12]
    assert Manifest.load(result.student).max_length == 64


def test_default_corpus_and_default_folder(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    more = {"training.max_steps": 2, "training.precision": "fp32", "capture.dtype": "fp32"}
    first = emb.distill(bert_folder, recipe="smoke", layers=1, overrides=more)
    second = emb.distill(bert_folder, recipe="smoke", layers=1, overrides=more)
    assert [result.run.as_posix() for result in (first, second)] == ["runs/tiny-bert", "runs/tiny-bert-2"]
    assert latest_run() == second.run
    assert weights(first.run) == weights(second.run)
    assert Manifest.load(first.student).lineage.data.texts == 300


def test_output_folder_in_the_way(bert_folder: Path, workplace: Path, finished: Any, tmp_path: Path) -> None:
    data = workplace / "corpus.jsonl"
    with pytest.raises(ArtifactError, match="already exists") as caught:
        distil(bert_folder, data, finished.run, cache=workplace / "cache")
    assert "--overwrite" in caught.value.hint
    assert "--resume" in caught.value.hint
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years of work", encoding="utf-8")
    for overwrite in (False, True):  # what is no run is never deleted
        with pytest.raises(ArtifactError, match="already exists"):
            distil(bert_folder, data, tmp_path / "precious", cache=workplace / "cache", overwrite=overwrite)
        with pytest.raises(ArtifactError, match="already exists"):
            distil(
                bert_folder, data, tmp_path / "precious" / "thesis.tex", cache=workplace / "cache", overwrite=overwrite
            )
    assert (tmp_path / "precious" / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_overwrite_replaces_a_run(bert_folder: Path, workplace: Path, finished: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    distil(
        bert_folder,
        workplace / "corpus.jsonl",
        run,
        cache=workplace / "cache",
        overwrite=True,
        more={**FEW, "pairs": [[2, 32]]},
    )
    assert {record["step"] for record in log(run)} == {0, 4}
    assert not (run / "student" / "exits.safetensors").exists()


def test_failure_before_the_start_is_not_in_the_way_of_the_next_try(
    bert_folder: Path, workplace: Path, finished: Any, tmp_path: Path
) -> None:
    for out in (tmp_path / "new", Path(shutil.copytree(finished.run, tmp_path / "run"))):
        before = sorted(path.name for path in out.iterdir()) if out.exists() else None
        with pytest.raises(UsageError, match="beyond the student's 2 layers"):
            distil(
                bert_folder,
                workplace / "corpus.jsonl",
                out,
                cache=workplace / "cache",
                overwrite=True,
                more={"pairs": [[5, 32]]},
            )
        assert (sorted(path.name for path in out.iterdir()) if out.exists() else None) == before
    assert weights(tmp_path / "run") == weights(finished.run)


def test_two_runs_in_one_folder(bert_folder: Path, workplace: Path, finished: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    with room._locked(run):
        with pytest.raises(UsageError, match="another process is working on this run") as caught:
            distil(bert_folder, workplace / "corpus.jsonl", run, cache=workplace / "cache", overwrite=True)
    assert "--out" in caught.value.hint
    assert weights(run) == weights(finished.run)


def test_two_runs_on_one_cache_at_once(bert_folder: Path, workplace: Path, tmp_path: Path) -> None:
    data = workplace / "corpus.jsonl"
    processes = [start(distil, bert_folder, data, tmp_path / name, more=FEW) for name in "ab"]
    assert [finish(process) for process in processes] == [0, 0]
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_same_run_again_gives_the_same_student(bert_folder: Path, workplace: Path, finished: Any) -> None:
    again = distil(bert_folder, workplace / "corpus.jsonl", workplace / "again")
    assert weights(again.run) == weights(finished.run)
    other = distil(bert_folder, workplace / "corpus.jsonl", workplace / "other-seed", more={"training.seed": 1})
    assert weights(other.run) != weights(finished.run)


def test_teacher_with_a_projection(workplace: Path, tmp_path: Path) -> None:
    teacher = tiny_bert(tmp_path / "wide", hidden=32, dim=48)
    result = distil(teacher, workplace / "corpus.jsonl", tmp_path / "run", more={**FEW, "pairs": [[1, 40]]})
    assert Manifest.load(result.student).dim == 48
    assert [(score.layers, score.dim) for score in result.scores] == [(1, 40), (2, 48)]
