"""Parallel text through a run: what the teacher encodes, what the student learns, what is kept of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bitext import pairs, tsv
from distilling import SMALL
from tiny import tiny_bert

import emb
from emb.artifact.manifest import LayerDimPair, Manifest
from emb.data.corpus import Corpus, Text, split
from emb.data.documents import Document
from emb.data.pseudo_queries import PseudoQuery
from emb.data.run_texts import texts_for
from emb.distill import forecast as forecasting
from emb.distill import targets
from emb.distill.one_student import _identity
from emb.distill.past_run import find_past_run
from emb.distill.preparation import TrainingTexts, read_texts
from emb.distill.retention import KnownItems
from emb.distill.targets import corpus_of
from emb.distill.translations import tell_translations
from emb.errors import CheckpointError, DataError, TeacherError, UsageError
from emb.model.embedding_model import EmbeddingModel, ModelSpec, load_model
from emb.recipes.recipe import Recipe, load_recipe
from emb.teachers.cache import in_memory
from emb.teachers.capture import cached, capture, move_cached
from emb.teachers.function import FunctionTeacher

PAIRS = pairs(80)
BOTH = [each for text, other in PAIRS for each in (Text(text), Text(other, source_text=text))]


class Teacher:
    """Counts of letters, as a teacher who notes what it reads."""

    identity = "letters"

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, texts: Sequence[str], kind: str) -> np.ndarray[Any, Any]:
        self.read += texts
        counts = [[1 + text.count(letter) for letter in "abcdefghijklmnop"] for text in texts]
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, a file of pairs and, later, a cache."""
    folder = tmp_path_factory.mktemp("parallel")
    tiny_bert(folder / "teacher")
    tsv(folder / "pairs.tsv", PAIRS)
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMB_CACHE", str(place / "cache"))
    torch.set_num_threads(1)


def _distil(place: Path, out: Path, **more: Any) -> Any:
    overrides = {**SMALL, **more.pop("overrides", {})}
    return emb.distill(str(place / "teacher"), parallel=[place / "pairs.tsv"], out=out, overrides=overrides, **more)


@pytest.fixture(scope="module")
def run(place: Path) -> Any:
    """A run on parallel text alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMB_CACHE", str(place / "cache"))
        return _distil(place, place / "run", layers=2)


def _embedded(model: EmbeddingModel, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    found = np.zeros((len(texts), model.dim), np.float32)
    for places, vectors in model.embed_ids(model.tokenizer().encode(texts)):
        found[places] = vectors.numpy()
    return found


# --- what the teacher reads ---


def test_each_source_is_encoded_once_and_no_translation_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    function = Teacher()
    teacher = FunctionTeacher(function, "letters")
    assert teacher.identity.weights  # told by its vectors of a few texts
    function.read.clear()
    vectors = capture(teacher, BOTH[::-1]).take(range(len(BOTH)))[::-1]  # a translation stands before its source
    assert sorted(function.read) == sorted(text for text, _ in PAIRS)
    assert np.array_equal(vectors[::2], vectors[1::2])
    assert np.allclose(vectors[::2], function([text for text, _ in PAIRS], "document"), atol=1e-3)
    assert "80 of 80 texts to encode" in capsys.readouterr().err


def test_what_is_cached_of_a_source_is_found_for_its_translation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    teacher = FunctionTeacher(Teacher(), "letters")
    capture(teacher, BOTH[:2])
    assert cached(teacher.identity.fingerprint, BOTH[1:2]) is not None
    assert cached(teacher.identity.fingerprint, [Text(PAIRS[0][1])]) is None, "a translation was encoded as it is"
    assert move_cached(teacher.identity.weights, "turned", np.eye(16, dtype=np.float32), BOTH[1:2]) == 1


def test_the_student_reads_the_translation_and_learns_its_source_s_vector(run: Any, place: Path) -> None:
    lineage = Manifest.load(run.student).lineage
    past, teacher = find_past_run(run.student, lineage), load_model(place / "teacher")
    texts = [*past.train.texts, *past.held_out.texts]
    expected = _embedded(teacher, [item.teacher_text for item in texts])
    assert np.allclose(past.vectors.take(range(len(texts))), expected, atol=2e-3)
    student = load_model(run.student)
    [row] = [row for row, item in enumerate(past.train.texts) if item == BOTH[1]] or [0]
    train, _ = past.splits(student)
    assert list(train.rows[row]) == list(student.tokenizer().encode([past.train.texts[row].text])[0])


def test_training_brings_translations_nearer(place: Path, tmp_path: Path) -> None:
    longer = {"training.max_steps": 120, "training.tokens_per_batch": 512, "training.train_token_embeddings": True}
    runs = [
        _distil(place, tmp_path / str(epochs), layers=2, overrides={**longer, "training.epochs": epochs})
        for epochs in (0, 100)
    ]
    translations = [item for item in split(Corpus(BOTH), 1000)[0].texts if item.source_text]
    goal = _embedded(load_model(place / "teacher"), [item.teacher_text for item in translations])
    before, after = (
        float((_embedded(load_model(each.student), [item.text for item in translations]) * goal).sum(1).mean())
        for each in runs
    )
    print(f"cosine of translations that are trained on: {before:.4f} before, {after:.4f} after")
    assert 1 - after < 0.85 * (1 - before)


# --- what a run keeps and says ---


def test_held_out_texts_say_what_they_translate(run: Any) -> None:
    records = [json.loads(line) for line in (run.run / "held-out.jsonl").read_text("utf-8").splitlines()]
    _, held_out = split(Corpus(BOTH), 1000)
    assert [Text(**record) for record in records] == held_out.texts
    assert {tuple(record) for record in records} == {("text", "kind"), ("text", "kind", "source_text")}
    found, _ = texts_for(run.student, len(records))
    assert found == held_out.texts


def test_the_recipe_names_the_file_and_the_lineage_its_texts(run: Any, place: Path) -> None:
    recipe = load_recipe(str(run.run / "recipe.yaml"), {})
    assert recipe.data.parallel == [str(place / "pairs.tsv")]
    assert recipe.data.sources == []
    data = Manifest.load(run.student).lineage.data
    assert data is not None
    assert (data.texts, data.hash) == (160, Corpus(BOTH).digest)


def test_languages_are_told_apart_at_the_end(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _distil(place, tmp_path / "run", layers=2, overrides={"training.max_steps": 1})
    told = " ".join(capsys.readouterr().err.split())
    assert "corpus: 160 texts, 0 of them queries, 80 translations" in told
    assert "held-out cosine at 2x32: translations 0." in told


def test_translations_are_measured_beside_what_they_translate(capsys: pytest.CaptureFixture[str]) -> None:
    held_out = [Text("a"), Text("b"), Text("z", source_text="a"), Text("of no pair")]
    teacher = np.eye(4, dtype=np.float32)[[0, 1, 0, 3]]
    student = np.asarray([[1, 0, 0, 0], [0, 0, 1, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0]], np.float32)
    tell_translations(held_out, student, teacher, LayerDimPair(1, 4))
    told = " ".join(capsys.readouterr().err.split())
    assert "at 1x4: translations 0.6000 (1 texts), what they translate 1.0000 (1 texts)" in told
    tell_translations(held_out, student, teacher, LayerDimPair(1, 1))
    assert "translations 1.0000" in capsys.readouterr().err
    tell_translations(held_out[:2], student, teacher, LayerDimPair(1, 4))
    tell_translations(held_out[2:], student, teacher, LayerDimPair(1, 4))
    assert not capsys.readouterr().err


# --- going on ---


def test_a_run_begun_before_there_was_parallel_text_goes_on() -> None:
    corpus = Corpus([Text("a"), Text("b", "query")])
    assert _identity(Recipe(teacher="t"), corpus, "f") == "ee654c9017aea920de788d80ac1ecbe8"


def test_another_source_is_another_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tsv(tmp_path / "pairs.tsv", PAIRS)
    recipe = load_recipe(None, {"teacher": "t", "data.parallel": [str(data)]})
    before = _identity(recipe, corpus_of(recipe), "f")
    tsv(data, [("another source", PAIRS[0][1]), *PAIRS[1:]])
    assert _identity(recipe, corpus_of(recipe), "f") != before
    elsewhere = load_recipe(None, {"teacher": "t", "data.sources": ["x"]})
    assert _identity(recipe, corpus_of(recipe), "f") != _identity(elsewhere, corpus_of(recipe), "f")


def test_a_changed_translation_is_refused_on_resume(place: Path, tmp_path: Path) -> None:
    data = tsv(tmp_path / "pairs.tsv", PAIRS)
    given: dict[str, Any] = {"layers": 2, "overrides": SMALL | {"training.max_steps": 3}}
    run = emb.distill(str(place / "teacher"), parallel=[data], out=tmp_path / "run", **given).run
    status = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps(status | {"status": "running"}), "utf-8")
    tsv(data, [*PAIRS[:-1], (PAIRS[-1][0], "something else")])
    with pytest.raises(CheckpointError, match="other data"):
        emb.distill(out=run, resume=True)


def test_a_file_of_pairs_that_has_gone_is_named(run: Any, tmp_path: Path) -> None:
    lineage = copy.deepcopy(Manifest.load(run.student).lineage)
    lineage.recipe["data"]["parallel"] = ["./nowhere.tsv"]
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(text for text, _ in PAIRS), encoding="utf-8")
    for sources in ([], [str(texts)]):
        with pytest.raises(DataError, match=r"not where they were.*nowhere\.tsv[\s\S]*put \./nowhere\.tsv back"):
            find_past_run(run.student, lineage, sources)
    lineage = Manifest.load(run.student).lineage
    assert find_past_run(run.student, lineage, [str(texts)]).corpus.texts == BOTH


# --- beside other things ---


def test_a_sample_for_a_forecast_keeps_pairs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "TEXTS", 60)
    whole = Corpus(BOTH)
    sample = forecasting.sample_of(TrainingTexts(whole, *split(whole, 1000), [], []))
    assert len(sample.corpus) == 60
    assert len({item.teacher_text for item in sample.corpus.texts}) == 30
    sides = [{item.teacher_text for item in part.texts} for part in (sample.train, sample.held_out)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 15


def test_beside_documents_a_sample_keeps_pairs_together_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "DOCUMENTS", 10)
    documents = [Document("", f"document {n}") for n in range(40)]
    cut = [PseudoQuery(f"query {n}", n) for n in range(40)]
    whole = Corpus([*(Text(each.text, "query") for each in cut), *BOTH])
    sample = forecasting.sample_of(TrainingTexts(whole, *split(whole, 1000), documents, cut))
    beside = [item for item in sample.corpus.texts if item in BOTH]
    assert len(beside) == 40
    assert len({item.teacher_text for item in beside}) == 20


def test_the_teacher_s_time_is_that_of_sources_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    tokenizer = SimpleNamespace(encode=lambda group: given.extend(group) or group)
    model: Any = SimpleNamespace(
        spec=ModelSpec(),
        tokenizer=lambda: tokenizer,
        embed_ids=lambda rows, tokens_per_batch: [],
        to=lambda place: model,
    )
    monkeypatch.setattr(targets, "load_model", lambda path, **options: model)
    teacher: Any = SimpleNamespace(vectors=None, path=Path())
    targets.teacher_seconds(Recipe(teacher="t"), teacher, BOTH[:40], [], False)
    assert given == [text for text, _ in PAIRS[:20]]


def test_a_translation_is_no_rival_of_its_own() -> None:
    vectors = np.random.default_rng(0).normal(size=(80, 8)).astype(np.float32).repeat(2, axis=0)
    given: Any = SimpleNamespace(
        train=Corpus(BOTH[:100]),
        held_out=Corpus(BOTH[100:]),
        targets=SimpleNamespace(train=in_memory(vectors[:100]), held_out=in_memory(vectors[100:])),
    )
    cut = [PseudoQuery(PAIRS[0][0], 1)]
    found = forecasting.crowded(KnownItems([0], [1], vectors[:2]), given, cut, 10**6)
    assert found.rivals is not None
    assert sorted(map(tuple, found.rivals)) == sorted(map(tuple, vectors[::2]))


def test_for_documents_and_for_queries_pairs_are_whole_queries(place: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(
        "\n".join(json.dumps({"text": f"The harbour has berth number {n}."}) for n in range(30)), encoding="utf-8"
    )
    given = {"teacher": "t", "data.parallel": [str(place / "pairs.tsv")]}
    queries = [Text(item.text, "query", item.source_text) for item in BOTH]
    assert read_texts(load_recipe(None, {**given, "data.as_queries": True}))[1].corpus.texts == queries
    fitted = read_texts(load_recipe(None, {**given, "data.documents": [str(tmp_path / "docs.jsonl")]}))[1].corpus.texts
    beside = [item for item in fitted if item in queries]
    assert len(beside) == len(fitted) / 2
    assert any(item.source_text for item in beside)


def test_a_run_for_documents_tells_of_translations(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = [json.dumps({"text": f"{text} and so on for the number {n}"}) for n, (text, _) in enumerate(PAIRS[:40])]
    (tmp_path / "docs.jsonl").write_text("\n".join(docs), encoding="utf-8")
    _distil(
        place, tmp_path / "run", documents=[tmp_path / "docs.jsonl"], overrides={"training.max_steps": 2, "pairs": None}
    )
    assert "translations 0." in " ".join(capsys.readouterr().err.split())


# --- files of vectors ---


def test_vectors_in_the_order_of_other_texts_have_none_for_pairs(place: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.eye(80, 16, dtype=np.float32))
    (tmp_path / "texts.txt").write_text("\n".join(text for text, _ in PAIRS), encoding="utf-8")
    with pytest.raises(UsageError, match=r"parallel .*pairs\.tsv: .*vectors\.npy has vectors in the order of data"):
        emb.distill(
            teacher_vectors=tmp_path / "vectors.npy",
            data=[tmp_path / "texts.txt"],
            parallel=[place / "pairs.tsv"],
            student=place / "teacher",
            out=tmp_path / "run",
        )


def test_vectors_beside_their_texts_serve_pairs_too(place: Path, tmp_path: Path) -> None:
    sources = [text for text, _ in PAIRS]
    vectors = Teacher()(sources, "document")
    pq.write_table(pa.table({"text": sources, "vector": list(vectors)}), tmp_path / "both.parquet")
    given: dict[str, Any] = {
        "teacher_vectors": tmp_path / "both.parquet",
        "student": place / "teacher",
        "overrides": {"training.max_steps": 2},
    }
    found = emb.distill(parallel=[place / "pairs.tsv"], out=tmp_path / "run", **given)
    data = Manifest.load(found.student).lineage.data
    assert data is not None
    assert (data.texts, found.scores[-1].dim) == (160, 16)
    other = tsv(tmp_path / "other.tsv", [*PAIRS, ("without a vector", "ohne Vektor")])
    with pytest.raises(TeacherError, match="has no vector of the document 'without a vector'"):
        emb.distill(parallel=[other], out=tmp_path / "other", **given)
