"""The door `emb.export`: what it writes, where, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.artifact.manifest import Manifest, PairScores
from emb.errors import ArtifactError, DiskError, UsageError
from emb.export import export, pipeline
from emb.export.quantized_files import int8_file
from emb.files import write_json
from emb.quantize.vectors.ranges import binarize, quantize_int8, unpack_binary
from emb.quantize.weights import select
from emb.quantize.weights.schemes import schemes
from emb.runtime.encoder import load
from emb.similarity import cosines

INT8 = int8_file()


@pytest.fixture(scope="module")
def full(student_folder: Path, sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2x16 slice with everything an export can write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "int8_file", lambda *given: INT8)
        patch.setattr(select, "schemes", lambda *given: schemes(*given)[:2])
        patch.setattr(select, "ROUNDS", 1)
        [folder] = export(
            student_folder,
            layers=[2],
            dims=[16],
            int8=True,
            fp16=True,
            vectors=["int8", "binary"],
            out=tmp_path_factory.mktemp("out") / "slice",
            calibration_texts=sentences,
            threads=1,
            min_cosine=0.9,
        )
    return folder


def test_writes_the_names_people_expect(full: Path) -> None:
    names = {path.name for path in (full / "onnx").iterdir()}
    assert names == {
        "model.onnx",
        "model_fp16.onnx",
        INT8.removeprefix("onnx/"),
        "model_quantized.onnx",
        "model_vectors_int8.onnx",
        "model_vectors_binary.onnx",
    }
    Manifest.load(full).verify(full)


def test_manifest_says_what_it_is_and_where_it_came_from(full: Path) -> None:
    manifest = Manifest.load(full)
    assert (manifest.kind, manifest.layers, manifest.dim) == ("slice", 2, 16)
    assert manifest.lineage.teacher.name == "tiny-teacher"
    assert manifest.pairs == [PairScores(2, 16, 0.5, 0.5)]
    found = manifest.lineage.quantization
    assert {each.name for each in found.candidates} == {"dynamic", "weight-only-128"}
    assert manifest.variant(INT8).quantizer == found.chosen
    assert manifest.variant(INT8).passed
    assert np.shape(manifest.calibration["ranges"]) == (2, 16)
    assert manifest.calibration["binary"] == {"threshold": 0, "packing": "msb"}


def test_every_variant_gives_the_slice_s_vectors(full: Path, sentences: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(full), device="cpu").encode(sentences, prompt_name="query")
    manifest = Manifest.load(full)
    np.testing.assert_allclose(load(full, file="onnx/model.onnx").encode_query(sentences), expected, atol=3e-6)
    assert cosines(expected, load(full, file="onnx/model_fp16.onnx").encode_query(sentences)).min() > 0.999
    assert cosines(expected, load(full, file=INT8).encode_query(sentences)).min() > 0.95
    floats = load(full, file=INT8, threads=1).encode_query(sentences, tokens_per_batch=1)
    ranges = np.asarray(manifest.calibration["ranges"])
    stored = load(full, file="onnx/model_vectors_int8.onnx", threads=1).encode_query(sentences, tokens_per_batch=1)
    assert np.abs(stored.astype(int) - quantize_int8(floats, ranges)).max() <= 1
    bits = load(full, file="onnx/model_vectors_binary.onnx", threads=1).encode_query(sentences, tokens_per_batch=1)
    assert bits.shape == (len(sentences), 2)
    assert unpack_binary(bits ^ binarize(floats)).mean() < 0.01


def test_qwen3_goes_through(
    qwen3_folder: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[2:3])
    monkeypatch.setattr(select, "ROUNDS", 1)
    [folder] = export(qwen3_folder, dims=[16], int8=True, out=tmp_path / "out", calibration_texts=sentences, threads=1)
    manifest = Manifest.load(folder)
    assert (manifest.kind, manifest.pooling, manifest.layers) == ("encoder", "lasttoken", 3)
    assert manifest.variants[1].passed
    expected = load(folder, backend="torch").encode_query(sentences)
    np.testing.assert_allclose(load(folder, file="onnx/model.onnx").encode_query(sentences), expected, atol=3e-6)
    assert cosines(expected, load(folder).encode_query(sentences)).min() > 0.99


def test_several_pairs_make_several_folders(student_folder: Path, tmp_path: Path, sentences: list[str]) -> None:
    folders = export(student_folder, layers=[1, 2], dims=[8], out=tmp_path / "out", calibration_texts=sentences)
    assert folders == [tmp_path / "out" / "1x8", tmp_path / "out" / "2x8"]
    assert [Manifest.load(folder).layers for folder in folders] == [1, 2]


def test_a_run_keeps_its_exports(
    student_folder: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(student_folder, "runs/one/student")
    write_json(Path("runs/one/run.json"), {"status": "finished", "at": "2026-01-01T00:00:00+00:00"})
    assert export(layers=[1], dims=[8], calibration_texts=sentences) == [Path("runs/one/exports/1x8")]


def test_a_folder_s_export_is_named_after_it(
    bert_folder: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(bert_folder, calibration_texts=sentences) == [Path("exports/tiny-bert-3x32")]


def test_no_run_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no finished run"):
        export()


def test_run_without_a_student_is_said(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"status": "running", "at": "2026-01-01T00:00:00+00:00"})
    with pytest.raises(UsageError, match="no student yet"):
        export(tmp_path)


def test_missing_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        export(tmp_path / "nowhere")


def test_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a folder without modules"):
        export(tmp_path, out=tmp_path / "out")


def test_out_that_holds_something_is_kept(student_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="already exists"):
        export(student_folder, out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_overwrite_replaces(student_folder: Path, tmp_path: Path, sentences: list[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    export(student_folder, layers=[1], dims=[8], out=tmp_path / "out", overwrite=True, calibration_texts=sentences)
    assert not (tmp_path / "out" / "old.txt").exists()
    assert Manifest.load(tmp_path / "out").dim == 8


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dims": [49]}, "^dim 49"),
        ({"layers": [9]}, "^layers 9"),
        ({"vectors": ["int4"]}, "^vectors int4"),
        ({"dims": [12], "vectors": ["binary"]}, "whole bytes"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    student_folder: Path, tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export(student_folder, out=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_artifact_edited_by_hand_is_refused_unless_told(
    student_folder: Path, tmp_path: Path, sentences: list[str]
) -> None:
    edited = shutil.copytree(student_folder, tmp_path / "edited")
    config = edited / "config_sentence_transformers.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ArtifactError, match="changed since it was written: config_sentence"):
        export(edited, out=tmp_path / "out")
    assert export(edited, layers=[1], dims=[8], out=tmp_path / "out", verify=False, calibration_texts=sentences)


def test_a_failure_leaves_nothing_behind(
    student_folder: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "write_graph", full_disk)
    with pytest.raises(DiskError, match="the disk is full"):
        export(student_folder, layers=[1], out=tmp_path / "out", calibration_texts=sentences)
    assert list(tmp_path.iterdir()) == []
