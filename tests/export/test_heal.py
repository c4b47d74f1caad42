"""Healing: training under the rounding of the files, against what a distillation left behind."""

from __future__ import annotations

import copy
import json
import random
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilling import corpus_file, distil
from tiny import SENTENCES

from emb.artifact.manifest import LayerDimPair, Manifest
from emb.cli import cli
from emb.data.corpus import Corpus, Text, split
from emb.distill.past_run import PastRun, find_past_run
from emb.errors import DataError, TeacherError, Terminated, TrainingError, UsageError
from emb.export import export
from emb.export import quantized_files as small
from emb.export.heal import Aim, Healed, _Healing, forget, heal
from emb.model.embedding_model import EmbeddingModel, load_model, save_model
from emb.quantize.weights import int4, select
from emb.quantize.weights.fake import PRECISIONS, fake_quantised
from emb.quantize.weights.schemes import schemes
from emb.recipes.recipe import Recipe, TrainingRecipe
from emb.runtime.encoder import load
from emb.similarity import cosines
from emb.teachers.cache import TeacherEmbeddings
from emb.validate.proof import validate

PAIR, FOUR_BITS = LayerDimPair(3, 32), Aim(("int4",))
SHORT: dict[str, Any] = {
    "epochs": 50,
    "max_steps": 12,
    "lr": 1e-3,
    "lr_end": 1e-4,
    "warmup_steps": 2,
    "tokens_per_batch": 256,
    "precision": "fp32",
    "evaluate_every": 10**9,
}


@pytest.fixture(scope="module")
def model(bert_folder: Path) -> EmbeddingModel:
    """A model that is its own teacher: nothing but rounding takes it from its targets."""
    return load_model(bert_folder)


@pytest.fixture(scope="module")
def past(model: EmbeddingModel) -> PastRun:
    """Texts put together from the tokenizer's words, and the model's own vectors of them."""
    rng, words = random.Random(0), " ".join(SENTENCES).split()
    corpus = Corpus([Text(" ".join(rng.choices(words, k=rng.randint(3, 30)))) for _ in range(300)])
    train, held_out = split(corpus, 60)
    rows = model.tokenizer().encode([item.text for item in (*train.texts, *held_out.texts)])
    records = np.zeros(len(rows), np.dtype([("vector", "<f2", (model.dim,))]))
    for places, vectors in model.embed_ids(rows):
        records["vector"][places] = vectors.numpy()
    return PastRun(
        Recipe(teacher="itself"),
        corpus,
        train,
        held_out,
        TeacherEmbeddings([records], np.asarray([(0, row) for row in range(len(rows))])),
        "0",
    )


def _healed(model: EmbeddingModel, past: PastRun, place: Path, aim: Aim = FOUR_BITS, **changes: Any) -> Healed:
    torch.set_num_threads(1)
    return heal(model, PAIR, past, aim, TrainingRecipe(**{**SHORT, **changes}), place)


def _cosine(model: EmbeddingModel, past: PastRun, precision: str) -> float:
    """Mean cosine to the targets of held-out texts, computed in `precision`."""
    held_out = past.splits(model)[1]
    found = np.zeros((len(held_out.rows), model.dim), np.float32)
    with fake_quantised(model) as dial:
        dial.precision = PRECISIONS[precision]
        for places, vectors in model.embed_ids(held_out.rows):
            found[places] = vectors.numpy()
    return float(cosines(found, held_out.targets.take(range(len(found)))).mean())


def test_healing_gives_back_what_4_bits_cost(model: EmbeddingModel, past: PastRun, tmp_path: Path) -> None:
    before = _cosine(model, past, "int4")
    after = _cosine(_healed(model, past, tmp_path / "place", max_steps=80).model, past, "int4")
    print(f"held-out cosine in 4 bits: {before:.5f} before, {after:.5f} after")
    assert 1 - after < 0.7 * (1 - before)


def test_binary_vectors_come_nearer_to_the_teacher_s(model: EmbeddingModel, past: PastRun, tmp_path: Path) -> None:
    student = copy.deepcopy(model)  # not the model itself: no ±1 vector is nearer to a vector than its own signs
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(
                0.2
                * parameter.std(correction=0)
                * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )
    healed = _healed(student, past, tmp_path / "place", Aim(binary=True), max_steps=80)
    before, after = (_agreement(each, past) for each in (student, healed.model))
    print(f"held-out bits that agree with the teacher's: {before:.4f} before, {after:.4f} after")
    assert 1 - after < 0.8 * (1 - before)


def _agreement(model: EmbeddingModel, past: PastRun) -> float:
    """Share of held-out bits that are the teacher's."""
    held_out = past.splits(model)[1]
    goal = held_out.targets.take(range(len(held_out.rows))) > 0
    return float(
        np.mean(
            [
                ((vectors.numpy() > 0) == goal[places]).mean()
                for places, vectors in model.embed_ids(held_out.rows, tokens_per_batch=32)
            ]
        )
    )


def test_no_step_changes_no_byte(model: EmbeddingModel, past: PastRun, tmp_path: Path) -> None:
    healed = _healed(model, past, tmp_path / "place", epochs=0)
    assert healed.record.steps == 0
    for name, each in (("before", model), ("after", healed.model)):
        save_model(each, tmp_path / name)
    assert (tmp_path / "before/model.safetensors").read_bytes() == (tmp_path / "after/model.safetensors").read_bytes()


def test_what_is_healed_for_decides_which_checkpoints_are_its_own(
    model: EmbeddingModel, past: PastRun, tmp_path: Path
) -> None:
    for aim in (Aim(("int4",)), Aim(("int8",)), Aim(("int4",), binary=True), Aim(("int4",))):
        _healed(model, past, tmp_path / "place", aim, epochs=0)
    assert len(list(tmp_path.glob("place-*"))) == 3


def test_the_slice_itself_stays_and_a_seed_gives_one_result(
    model: EmbeddingModel, past: PastRun, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (
        _healed(model, past, tmp_path / name, Aim(("int8", "int4"), binary=True)).model.state_dict() for name in "ab"
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, before[name]) for name, value in first.items())
    table = next(name for name in first if "word_embeddings" in name)
    assert torch.equal(first[table], before[table])  # a short training sees few of its rows


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interrupted_healing_goes_on_to_the_same_weights(
    number: signal.Signals,
    raised: type[BaseException],
    model: EmbeddingModel,
    past: PastRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aim, whole = (
        Aim(("int8", "int4"), binary=True),
        _healed(model, past, tmp_path / "whole", Aim(("int8", "int4"), binary=True)),
    )
    step = _Healing._train_step

    def pressed(self: _Healing, batch: Any, rate: float) -> float:
        if self.step == 6:
            signal.raise_signal(number)
        return step(self, batch, rate)

    with monkeypatch.context() as patch:
        patch.setattr(_Healing, "_train_step", pressed)
        with pytest.raises(KeyboardInterrupt) as caught:
            _healed(model, past, tmp_path / "place", aim)
    assert type(caught.value) is raised
    [kept] = tmp_path.glob("place-*/checkpoints/step-*")
    assert kept.name == "step-00000007"
    again = _healed(model, past, tmp_path / "place", aim)
    assert again.record.steps == 12
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in whole.model.state_dict().items())
    forget(tmp_path / "place")
    assert not list(tmp_path.glob("place-*"))


def test_a_healing_that_diverges_names_what_mends_a_healing(
    model: EmbeddingModel, past: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Healing, "_of_bits", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match="the loss is inf at step 0") as caught:
        _healed(model, past, tmp_path / "place", Aim((), binary=True))
    assert "--heal" in caught.value.hint
    assert "--overwrite" not in caught.value.hint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    """A small finished run with its corpus and cache beside it; copied before it is written to."""
    folder = tmp_path_factory.mktemp("healing")
    result = distil(
        bert_folder, corpus_file(folder), folder / "run", cache=folder / "cache", more={"training.max_steps": 5}
    )
    return Path(result.run)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[2:3])
    monkeypatch.setattr(select, "ROUNDS", 1)
    monkeypatch.setattr(small, "int8_file", lambda *_: "onnx/model_qint8_avx512_vnni.onnx")


def test_export_heals_and_says_what_it_gained(
    run: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(run.parent / "cache"))
    given: dict[str, Any] = {
        "layers": [2],
        "dims": [16],
        "int8": True,
        "int4": True,
        "vectors": ["binary"],
        "calibration_texts": sentences,
        "threads": 1,
    }
    [plain] = export(run, out=tmp_path / "plain", **given)
    [healed] = export(run, out=tmp_path / "healed", heal=1.0, **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["healed", "plain"]  # no checkpoints, no scratch
    manifest = Manifest.load(healed)
    manifest.verify(healed)
    assert Manifest.load(plain).lineage.healing is None
    found = manifest.lineage.healing
    assert found.weights == ["int8", "int4"]
    assert found.steps >= 20
    assert found.data.held_out == 6
    assert [(each.weights, each.vectors) for each in found.files] == [
        ("fp32", "float32"),
        ("int8", "float32"),
        ("int8", "ubinary"),
        ("int4", "float32"),
    ]
    assert all(
        0 <= getattr(each, side)[key] <= 1
        for each in found.files
        for side in ("before", "after")
        for key in ("cosine", "overlap", "asymmetric")
    )
    assert not np.allclose(
        load(plain, file="onnx/model.onnx").encode(sentences),
        load(healed, file="onnx/model.onnx").encode(sentences),
        atol=1e-3,
    )
    report = validate(healed, texts=sentences, threads=1)
    assert report.passed
    assert json.loads((healed / "parity.json").read_text())["healing"] == asdict(found)
    page = (healed / "report.html").read_text()
    assert "<h2>Healing</h2>" in page
    assert "int8 → binary, Hamming" in page
    assert "under the rounding of int8, int4, binary vectors" in " ".join(str(report).split())


def test_figures_before_are_those_of_the_unhealed_export(
    run: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(run.parent / "cache"))
    given: dict[str, Any] = {"layers": [1], "dims": [16], "int4": True, "calibration_texts": sentences, "threads": 1}
    [plain], [healed] = (
        export(run, out=tmp_path / "plain", **given),
        export(run, out=tmp_path / "healed", heal=0.5, **given),
    )
    _, held_out = find_past_run(run / "student", Manifest.load(run / "student").lineage).splits(load_model(plain))
    goal = held_out.targets.take(range(len(held_out.rows)))[:, :16]
    fp32, four = Manifest.load(healed).lineage.healing.files
    for record, file in ((fp32, "onnx/model.onnx"), (four, "onnx/model_q4.onnx")):
        for folder, side in ((plain, "before"), (healed, "after")):
            vectors = load(folder, file=file, threads=1).encode_ids(held_out.rows)
            assert getattr(record, side)["cosine"] == pytest.approx(cosines(vectors, goal).mean(), abs=1e-5)


def test_texts_that_moved_are_named_or_given(
    run: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(run.parent / "cache"))
    lineage = Manifest.load(run / "student").lineage
    moved = copy.deepcopy(lineage)
    moved.recipe["data"]["sources"] = ["./nowhere.jsonl"]
    with pytest.raises(DataError, match=r"not where they were.*nowhere\.jsonl[\s\S]*heal_data PATH"):
        find_past_run(run / "student", moved)
    found = find_past_run(run / "student", moved, [str(run.parent / "corpus.jsonl")])
    assert found.corpus.digest == lineage.data.hash
    assert found.fingerprint == lineage.teacher.fingerprint


def test_texts_that_changed_are_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(run.parent / "cache"))
    lineage = Manifest.load(run / "student").lineage
    lineage.recipe["data"]["sources"] = [str(corpus_file(tmp_path, 50))]
    assert len(find_past_run(run / "student", lineage).corpus) == 50
    assert "have changed since" in " ".join(capsys.readouterr().err.split())


def test_the_teacher_is_asked_only_for_what_is_not_cached(
    run: Path, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "empty"))
    lineage = Manifest.load(run / "student").lineage
    found = find_past_run(run / "student", lineage)
    assert found.fingerprint == lineage.teacher.fingerprint
    assert len(found.vectors) == len(found.corpus)
    gone = replace(lineage, teacher=replace(lineage.teacher, path=str(tmp_path / "gone"), name="gone"))
    find_past_run(run / "student", gone)  # cached by now
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "another"))
    with pytest.raises(TeacherError, match="gone: its vectors of these texts are not all cached"):
        find_past_run(run / "student", gone)
    other = replace(lineage, teacher=replace(lineage.teacher, weights="0" * 64))
    with pytest.raises(TeacherError, match="not on this machine"):
        find_past_run(run / "student", other)


def test_without_a_teacher_there_is_nothing_to_heal_against(
    bert_folder: Path, tmp_path: Path, sentences: list[str]
) -> None:
    with pytest.raises(UsageError, match="not distilled by emb"):
        export(bert_folder, int4=True, heal=1.0, out=tmp_path / "out", calibration_texts=sentences)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"heal": 1.0}, "no file to heal for"), ({"heal_data": ["x.txt"], "int8": True}, "heal_data without heal")],
)
def test_what_makes_no_sense_is_said(run: Path, tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(run, out=tmp_path / "out", **asked)


def test_a_4_bit_file_below_its_gate_is_marked_and_not_chosen(
    bert_folder: Path,
    tmp_path: Path,
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(int4, "MIN_COSINE", 0.9999)
    [folder] = export(
        bert_folder, int4=True, vectors=["binary"], out=tmp_path / "out", calibration_texts=sentences, threads=1
    )
    found = {variant.file: variant for variant in Manifest.load(folder).variants}
    assert found["onnx/model_q4.onnx"].passed is False
    assert found["onnx/model_vectors_binary.onnx"].weight_dtype == "fp32"
    assert "below 0.9999; written all the same, marked as failed" in " ".join(capsys.readouterr().err.split())
    assert load(folder).variant.weight_dtype == "fp32"  # type: ignore[attr-defined]


def test_the_command_takes_a_time(run: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    wrong = CliRunner().invoke(cli, ["export", str(run), "--heal", "soon", "--int8"])
    assert "not a time" in wrong.output
