"""Validation passes a sound artifact, and finds each way in which a file can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emb.artifact.lineage import Lineage, TeacherRecord
from emb.artifact.manifest import Kind, LayerDimPair, Manifest, Variant
from emb.artifact.runs import write_status
from emb.data.probes import probes
from emb.errors import ArtifactError, TeacherError, UsageError
from emb.export.graph import write_graph
from emb.export.vector_graphs import VECTOR_DTYPES, write_vectors
from emb.model.embedding_model import EmbeddingModel, load_model, save_model
from emb.model.slice import slice_model
from emb.quantize.vectors.ranges import calibrate
from emb.runtime.encoder import load
from emb.validate.findings import ParityReport, Thresholds, VariantReport
from emb.validate.gates import gates_of
from emb.validate.parity import Runs
from emb.validate.proof import validate

Embed = Callable[[EmbeddingModel, Tensor, Tensor], Tensor]


@pytest.mark.parametrize(("turned", "passes"), [(2, True), (3, False)])
def test_two_bits_of_a_text_may_turn_and_no_third(turned: int, passes: bool) -> None:
    bits = np.where(np.random.default_rng(0).random((50, 32)) < 0.5, np.float32(-1), np.float32(1))
    found = bits.copy()
    found[7, :turned] *= -1
    variant = Variant("f", vector_dtype="ubinary")
    mean, least = gates_of(
        VariantReport("f", "fp32", "ubinary", None, 1), variant, Thresholds(fp32=0.9999), bits, Runs({"alone": found})
    )
    assert (mean.passed, least.passed) == (True, passes)


def _artifact(folder: Path, source: Path, layers: int, dim: int, embed: Embed | None = None) -> Path:
    """An exported slice; `embed` replaces what the graph computes, while the torch folder stays right."""
    model = slice_model(load_model(source), LayerDimPair(layers, dim))
    save_model(model, folder)
    if embed is not None:
        broken: Any = model
        asked, states_of = [], model.token_states
        broken.token_states = lambda ids, mask, exits=None: (asked.append(ids), states_of(ids, mask, exits))[1]
        broken.finished = lambda states, mask, pair=None: embed(model, asked[0], mask)
    write_graph(model, folder / "onnx" / "model.onnx")
    spec = model.spec
    prompts = {"query": "", "document": "", **spec.prompts}
    Manifest(
        Kind.SLICE,
        layers,
        dim,
        spec.pooling,
        spec.normalize,
        spec.max_length,
        prompts,
        variants=[Variant("onnx/model.onnx")],
    ).save(folder)
    return folder


def _edit(folder: Path, **changes: Any) -> None:
    manifest = Manifest.load(folder)
    for name, value in changes.items():
        setattr(manifest, name, value)
    manifest.save(folder)


def _failed(report: ParityReport) -> set[str]:
    return {gate.name for found in report.variants for gate in found.gates if not gate.passed}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, student_folder: Path) -> Path:
    """A sound artifact, 2 layers × 16 dims, whose queries have a prompt; copied before it is written to."""
    return _artifact(tmp_path_factory.mktemp("sound") / "2x16", student_folder, 2, 16)


@pytest.fixture
def artifact(tmp_path: Path, sound: Path) -> Path:
    """A copy of the sound artifact."""
    return Path(shutil.copytree(sound, tmp_path / "2x16"))


def test_a_sound_artifact_passes(artifact: Path, sentences: list[str]) -> None:
    report = validate(artifact, texts=sentences)
    assert report.passed, _failed(report)
    (found,) = report.variants
    assert set(found.settings) == {"as a client", "batch 1", "mixed, right padding", "mixed, left padding"}
    assert all(
        figures["max_abs_diff"] is not None and figures["max_abs_diff"] < 1e-5 for figures in found.settings.values()
    )
    assert found.bytes == (artifact / "onnx/model.onnx").stat().st_size
    assert 0 < found.latency_ms["p50"] <= found.latency_ms["p95"]
    assert found.speed["tokens_per_second"] > found.speed["texts_per_second"] > 0
    assert {group: report.texts[group] for group in ("text", "odd", "long")} == {"text": 20, "odd": 64, "long": 6}
    assert report.texts["hard"] > 5


def test_it_is_written_down(artifact: Path, sentences: list[str]) -> None:
    before = Manifest.load(artifact).files
    report = validate(artifact, texts=sentences)
    manifest = Manifest.load(artifact)
    assert manifest.variants[0].passed is True
    assert manifest.variants[0].min_cosine == pytest.approx(report.variants[0].min_cosine)
    assert manifest.files == before
    manifest.verify(artifact)
    stored = json.loads((artifact / "parity.json").read_text(encoding="utf-8"))
    assert stored["passed"] is True
    assert stored["variants"][0]["settings"] == report.variants[0].settings
    assert (artifact / "report.html").is_file()
    assert "passed" in str(report)
    assert validate(artifact, texts=sentences).passed  # its own files do not count as changes


def test_last_token_pooling_on_both_padding_sides(tmp_path: Path, qwen3_folder: Path, sentences: list[str]) -> None:
    report = validate(_artifact(tmp_path / "a", qwen3_folder, 3, 32), texts=sentences)
    assert report.passed, _failed(report)


def test_missing_normalise(tmp_path: Path, student_folder: Path, sentences: list[str]) -> None:
    def embed(model: EmbeddingModel, ids: Tensor, mask: Tensor) -> Tensor:
        return model(ids, mask)[2]

    report = validate(_artifact(tmp_path / "a", student_folder, 2, 16, embed), texts=sentences)
    assert _failed(report) == {"vector length"}  # every cosine is 1


def test_prompt_ignored(artifact: Path, sentences: list[str]) -> None:
    _edit(artifact, prompts={"query": "", "document": ""})
    report = validate(artifact, texts=sentences)
    assert "min cosine to the torch slice" in _failed(report)
    assert {one["kind"] for one in report.variants[0].worst} == {"query"}


def test_prefix_that_nobody_asked_for(artifact: Path, sentences: list[str]) -> None:
    _edit(artifact, prompts={"query": "query: ", "document": "passage: "})
    report = validate(artifact, texts=sentences)
    assert not report.passed
    assert {one["kind"] for one in report.variants[0].worst} == {"document"}


def test_batch_dependence(tmp_path: Path, student_folder: Path, sentences: list[str]) -> None:
    def embed(model: EmbeddingModel, ids: Tensor, mask: Tensor) -> Tensor:
        vectors = model(ids, mask)[2]
        return torch.nn.functional.normalize(vectors + 0.05 * (vectors.mean(0, keepdim=True) - vectors[:1]), dim=-1)

    report = validate(_artifact(tmp_path / "a", student_folder, 2, 16, embed), texts=sentences)
    assert "min cosine of batch 1 to mixed batches" in _failed(report)
    assert report.variants[0].settings["batch 1"]["min_cosine"] == pytest.approx(1)


def test_pooling_that_trusts_the_column(tmp_path: Path, qwen3_folder: Path, sentences: list[str]) -> None:
    def embed(model: EmbeddingModel, ids: Tensor, mask: Tensor) -> Tensor:
        states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        last = (mask.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
        return torch.nn.functional.normalize(states.gather(1, last).squeeze(1), dim=-1)

    report = validate(_artifact(tmp_path / "a", qwen3_folder, 3, 32, embed), texts=sentences)
    assert not report.passed
    settings = {name: figures["min_cosine"] or 0.0 for name, figures in report.variants[0].settings.items()}
    assert settings["mixed, left padding"] < 0.9
    assert settings["mixed, right padding"] == pytest.approx(1, abs=1e-5)


def test_left_padding_is_shown_and_not_asked_of_another_exporter(
    tmp_path: Path, qwen3_folder: Path, sentences: list[str]
) -> None:
    def embed(model: EmbeddingModel, ids: Tensor, mask: Tensor) -> Tensor:
        states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        last = (mask.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
        return torch.nn.functional.normalize(states.gather(1, last).squeeze(1), dim=-1)

    folder, other = (
        _artifact(tmp_path / "a", qwen3_folder, 3, 32),
        _artifact(tmp_path / "other", qwen3_folder, 3, 32, embed),
    )
    shutil.copy(other / "onnx/model.onnx", folder / "onnx/model_optimum.onnx")
    _edit(folder, variants=[Variant("onnx/model_optimum.onnx", exporter="optimum"), Variant("onnx/model.onnx")])
    assert load(folder).variant.file == "onnx/model.onnx"  # type: ignore[attr-defined]
    report = validate(folder, texts=sentences)
    assert report.passed, _failed(report)
    theirs, ours = report.variants
    assert (theirs.settings["mixed, left padding"]["min_cosine"] or 0.0) < 0.9
    assert theirs.min_cosine == pytest.approx(1, abs=1e-5)
    assert "Beside another exporter" in (folder / "report.html").read_text(encoding="utf-8")
    assert json.loads((folder / "parity.json").read_text(encoding="utf-8"))["variants"][0]["exporter"] == "optimum"
    assert ours.ungated == []


def test_pooling_over_padding(tmp_path: Path, student_folder: Path, sentences: list[str]) -> None:
    def embed(model: EmbeddingModel, ids: Tensor, mask: Tensor) -> Tensor:
        states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return torch.nn.functional.normalize(model.heads["2"](states.mean(1)), dim=-1)

    report = validate(_artifact(tmp_path / "a", student_folder, 2, 16, embed), texts=sentences)
    assert "min cosine of batch 1 to mixed batches" in _failed(report)


def test_limit_that_differs(artifact: Path, sentences: list[str]) -> None:
    _edit(artifact, max_length=48)
    report = validate(artifact, texts=sentences)
    assert "min cosine to the torch slice" in _failed(report)
    assert report.variants[0].groups["long"] < 0.99999


def test_weights_of_another_model(artifact: Path, tmp_path: Path, student_folder: Path, sentences: list[str]) -> None:
    other = _artifact(tmp_path / "other", student_folder, 3, 16)
    shutil.copy(other / "onnx/model.onnx", artifact / "onnx/model.onnx")
    _edit(artifact)
    assert not validate(artifact, texts=sentences).passed


def test_not_a_number(tmp_path: Path, student_folder: Path, sentences: list[str]) -> None:
    def embed(model: EmbeddingModel, ids: Tensor, mask: Tensor) -> Tensor:
        return model(ids, mask)[2] / (mask.sum(1, keepdim=True) - 3).clamp(min=0)  # texts of one token divide by zero

    folder = _artifact(tmp_path / "a", student_folder, 2, 16, embed)
    report = validate(folder, texts=sentences)
    assert _failed(report) >= {"min cosine to the torch slice", "vector length"}
    stored = (folder / "parity.json").read_text(encoding="utf-8")
    assert "NaN" not in stored
    assert "Infinity" not in stored
    assert "not finite" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_file_that_does_not_run(artifact: Path, sentences: list[str]) -> None:
    (artifact / "onnx/model.onnx").write_bytes(b"not a graph")
    _edit(artifact)
    report = validate(artifact, texts=sentences)
    assert not report.passed
    assert report.variants[0].error
    assert Manifest.load(artifact).variants[0].passed is False
    assert (artifact / "onnx/model.onnx").is_file()  # marked, not deleted
    assert report.variants[0].error in (artifact / "report.html").read_text(encoding="utf-8").replace("&#x27;", "'")


def test_edited_by_hand(artifact: Path, sentences: list[str]) -> None:
    with (artifact / "config.json").open("a") as handle:
        handle.write("\n")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        validate(artifact, texts=sentences)
    assert validate(artifact, texts=sentences, verify=False).passed
    with pytest.raises(ArtifactError, match=r"config\.json"):  # the note of that did not vouch for the change
        Manifest.load(artifact).verify(artifact)


def test_two_names_of_one_file(artifact: Path, sentences: list[str]) -> None:
    shutil.copy(artifact / "onnx/model.onnx", artifact / "onnx/model_quantized.onnx")
    _edit(artifact, variants=[Variant("onnx/model.onnx"), Variant("onnx/model_quantized.onnx")])
    (found,) = validate(artifact, texts=sentences).variants
    assert found.same_as == ["onnx/model_quantized.onnx"]
    assert [variant.passed for variant in Manifest.load(artifact).variants] == [True, True]


def test_the_gate_of_int8(artifact: Path, sentences: list[str]) -> None:
    _edit(artifact, variants=[Variant("onnx/model.onnx", weight_dtype="int8", quantizer="none")])
    (found,) = validate(artifact, texts=sentences).variants
    assert [(gate.name, gate.limit) for gate in found.gates] == [
        ("min cosine to the torch slice", 0.99),
        ("vector length", 0.01),
        ("min cosine of batch 1 to mixed batches", 0.999),
    ]
    (found,) = validate(artifact, texts=sentences, min_cosine=0.5).variants
    assert found.gates[0].limit == 0.5
    assert not validate(artifact, texts=sentences, thresholds=Thresholds(int8=1.01)).passed


def _with_stored_vectors(folder: Path, made_from: Path, sentences: list[str]) -> None:
    """Add the int8 and binary files of `made_from` to the artifact in `folder`."""
    from emb.runtime.encoder import ArtifactEncoder

    ranges = calibrate(ArtifactEncoder(folder).encode([*sentences, *(probe.text for probe in probes(64))]))
    for kind in VECTOR_DTYPES:
        write_vectors(made_from / "onnx/model.onnx", folder / f"onnx/model_{kind}.onnx", kind, ranges)
    variants = [
        Variant("onnx/model.onnx"),
        *(Variant(f"onnx/model_{kind}.onnx", vector_dtype=dtype) for kind, dtype in VECTOR_DTYPES.items()),
    ]
    _edit(folder, variants=variants, calibration={"ranges": ranges.tolist()})


def test_stored_vectors(artifact: Path, sentences: list[str]) -> None:
    _with_stored_vectors(artifact, artifact, sentences)
    report = validate(artifact, texts=sentences)
    assert report.passed, _failed(report)
    assert [found.vector_dtype for found in report.variants] == ["float32", "int8", "ubinary"]
    assert 0.99 < report.variants[1].min_cosine < 1


def test_stored_vectors_that_are_wrong(
    artifact: Path, tmp_path: Path, student_folder: Path, sentences: list[str]
) -> None:
    _with_stored_vectors(artifact, _artifact(tmp_path / "other", student_folder, 3, 16), sentences)
    report = validate(artifact, texts=sentences)
    assert [found.passed for found in report.variants] == [True, False, False]
    assert "mean agreement of bits with the torch slice" in _failed(report)


def test_against_a_teacher(artifact: Path, bert_folder: Path, student_folder: Path, sentences: list[str]) -> None:
    report = validate(artifact, texts=sentences, against=bert_folder)
    teacher = report.variants[0].teacher
    assert report.teacher["name"] == "tiny-bert"
    assert teacher is not None
    assert teacher["mean_cosine"] is not None
    assert teacher["mean_cosine"] < 0.9
    itself = validate(artifact, texts=sentences, against=artifact).variants[0].teacher
    assert itself is not None
    assert itself["min_cosine"] == pytest.approx(1, abs=1e-5)


def test_a_teacher_that_cannot_be_had(artifact: Path, bert_folder: Path, sentences: list[str]) -> None:
    _edit(artifact, lineage=Lineage(TeacherRecord("./gone", str(artifact / "gone"))))
    report = validate(artifact, texts=sentences)
    assert report.passed
    assert report.teacher == {"name": None, "reason": "./gone is not on this machine; give it with --against"}
    assert "Not measured" in (artifact / "report.html").read_text(encoding="utf-8")
    with pytest.raises(TeacherError):
        validate(artifact, texts=sentences, against="./gone")
    # The folder of a Python package's model is called "model"; tables name the teacher.
    _edit(artifact, lineage=Lineage(TeacherRecord("a-teacher", str(bert_folder))))
    assert validate(artifact, texts=sentences).teacher["name"] == "a-teacher"


def test_data_files(artifact: Path, tmp_path: Path, sentences: list[str]) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(sentences), encoding="utf-8")
    assert validate(artifact, data=[str(path)], max_texts=5).texts["text"] == 5


def test_not_an_artifact(tmp_path: Path, bert_folder: Path, student_folder: Path, artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact"):
        validate(bert_folder)
    with pytest.raises(ArtifactError, match="no ONNX file"):
        validate(student_folder)
    with pytest.raises(UsageError, match="no text"):
        validate(artifact, texts=[])


def test_the_latest_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: Path, sentences: list[str]) -> None:
    run = tmp_path / "runs" / "first"
    shutil.copytree(sound, run / "exports" / "2x16")
    monkeypatch.chdir(tmp_path)
    write_status(run, "running")
    with pytest.raises(UsageError, match="no finished run"):
        validate(texts=sentences)
    write_status(run, "finished")
    assert Path(validate(texts=sentences).artifact).name == "2x16"
