"""Exporting through optimum beside our own way; the real thing runs on the stack that has it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.commands import console
from emb.errors import ArtifactError, MissingExtra, UsageError
from emb.export import export, pipeline
from emb.export import quantized_files as small
from emb.quantize.weights import select
from emb.quantize.weights.schemes import schemes
from emb.runtime.encoder import load
from emb.similarity import cosines
from emb.validate.proof import validate

INT8 = "onnx/model_qint8_avx512_vnni.onnx"
THEIRS, THEIR_INT8 = "onnx/model_optimum.onnx", "onnx/model_optimum_qint8_avx512_vnni.onnx"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if optimum were not installed."""
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)


@pytest.mark.usefixtures("absent")
def test_without_optimum_the_command_that_brings_it_is_named(
    student_folder: Path, tmp_path: Path, sentences: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MissingExtra, match=r'pip install "emb-distill\[optimum\]"'):
        export(student_folder, out=tmp_path / "out", exporter="optimum", calibration_texts=sentences)
    assert (
        console.run(cli, ["export", str(student_folder), "--out", str(tmp_path / "out"), "--exporter", "optimum"]) == 2
    )
    assert "emb-distill[optimum]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_exporter_that_is_unknown_is_said(student_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^exporter dynamo: unknown"):
        export(student_folder, out=tmp_path / "out", exporter="dynamo")


@pytest.fixture(scope="module")
def both(student_folder: Path, sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2x16 slice exported both ways, with 8-bit weights."""
    pytest.importorskip("optimum.exporters.onnx", reason="needs python3 scripts/test.py --stack optimum")
    with pytest.MonkeyPatch.context() as patch:
        for module in (small, pipeline):
            patch.setattr(module, "int8_file", lambda *_: INT8)
        patch.setattr(select, "schemes", lambda *given: schemes(*given)[:1])
        patch.setattr(select, "ROUNDS", 1)
        [folder] = export(
            student_folder,
            layers=[2],
            dims=[16],
            int8=True,
            exporter="optimum",
            out=tmp_path_factory.mktemp("out") / "slice",
            calibration_texts=sentences,
            threads=1,
            min_cosine=0.9,
        )
    return folder


@pytest.mark.interop
def test_its_files_stand_beside_ours(both: Path) -> None:
    names = {path.name for path in (both / "onnx").iterdir()}
    assert names == {
        "model.onnx",
        "model_qint8_avx512_vnni.onnx",
        "model_quantized.onnx",
        "model_optimum.onnx",
        "model_optimum_qint8_avx512_vnni.onnx",
    }
    manifest = Manifest.load(both)
    manifest.verify(both)
    assert {variant.file: variant.exporter for variant in manifest.variants if variant.exporter != "emb"} == {
        THEIRS: "optimum",
        THEIR_INT8: "optimum",
    }
    assert manifest.variant(THEIR_INT8).quantizer == "avx512_vnni"
    assert manifest.lineage.export.versions["optimum-onnx"].startswith("0.1.")


@pytest.mark.interop
def test_its_graph_gives_the_finished_vectors(both: Path, sentences: list[str]) -> None:
    expected = load(both, backend="torch").encode_query(sentences)
    np.testing.assert_allclose(load(both, file=THEIRS).encode_query(sentences), expected, atol=3e-6)
    eight = cosines(expected, load(both, file=THEIR_INT8).encode_query(sentences))
    assert eight.min() > 0.9
    assert eight.min() < 0.99999  # it is quantised
    assert (both / THEIR_INT8).stat().st_size < (both / THEIRS).stat().st_size


@pytest.mark.interop
@pytest.mark.parametrize("file", [THEIRS, THEIR_INT8])
def test_sentence_transformers_own_backend_runs_its_files(both: Path, sentences: list[str], file: str) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(both), device="cpu", backend="onnx", model_kwargs={"file_name": file, "provider": "CPUExecutionProvider"}
    )
    ours = load(both, file=file, threads=1).encode_query(sentences, tokens_per_batch=1)
    # It projects in float, the int8 graph in int8.
    assert cosines(model.encode_query(sentences, batch_size=1), ours).min() > 0.9999


@pytest.mark.interop
def test_the_report_holds_both(both: Path, tmp_path: Path, sentences: list[str]) -> None:
    folder = Path(shutil.copytree(both, tmp_path / "copy"))
    report = validate(folder, texts=sentences, min_cosine=0.5)
    found = {each.file: each for each in report.variants}
    assert {each.exporter for each in found.values()} == {"emb", "optimum"}
    assert all(each.passed for each in found.values()), report
    # BERT counts positions from the first column: what our graphs are made to survive.
    assert found[THEIRS].settings["mixed, left padding"]["min_cosine"] < 0.999  # type: ignore[operator]
    assert found["onnx/model.onnx"].settings["mixed, left padding"]["min_cosine"] > 0.99999  # type: ignore[operator]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Beside another exporter" in page
    assert "int8, optimum (avx512_vnni)" in page


@pytest.mark.interop
def test_a_model_it_cannot_export_is_said_and_nothing_is_left(
    student_folder: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporters = pytest.importorskip("optimum.exporters.onnx")

    def unsupported(*_: object, **__: object) -> None:
        raise ValueError("no such architecture\nand a long story")

    monkeypatch.setattr(exporters, "main_export", unsupported)
    with pytest.raises(ArtifactError, match=r"optimum cannot export this model \(no such architecture\)"):
        export(student_folder, layers=[1], out=tmp_path / "out", exporter="optimum", calibration_texts=sentences)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.interop
def test_last_token_pooling_goes_through_optimum_too(qwen3_folder: Path, tmp_path: Path, sentences: list[str]) -> None:
    pytest.importorskip("optimum.exporters.onnx")
    [folder] = export(
        qwen3_folder, dims=[16], exporter="optimum", out=tmp_path / "out", calibration_texts=sentences, threads=1
    )
    expected = load(folder, backend="torch").encode_query(sentences)
    np.testing.assert_allclose(load(folder, file=THEIRS).encode_query(sentences), expected, atol=3e-6)
