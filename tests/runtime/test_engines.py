"""Exporting through OpenVINO and CTranslate2 beside our own way, and running their files; the real thing where they are
installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_bert

from emb.artifact.manifest import Kind, Manifest, Variant, bytes_of
from emb.cli import cli
from emb.commands import console
from emb.errors import ArtifactError, MissingExtra, UsageError
from emb.export import export, pipeline
from emb.export import quantized_files as small
from emb.export.toolchains import ctranslate2_files as with_ctranslate2
from emb.model.embedding_model import EmbeddingModel, load_model, pool, save_model
from emb.quantize.weights import select
from emb.quantize.weights.schemes import schemes
from emb.runtime.encoder import Encoder, load
from emb.runtime.engine import library_of, unreported
from emb.runtime.head import ACTIVATIONS, Dense, Head
from emb.similarity import cosines
from emb.validate.proof import validate

OPENVINO, OPENVINO8 = "openvino/openvino_model.xml", "openvino/openvino_model_qint8_quantized.xml"
CTRANSLATE2 = "ctranslate2/model.bin"
BOTH = ("openvino", "ctranslate2")


@pytest.mark.parametrize(
    ("exporter", "library"), [("openvino", "openvino"), ("openvino", "nncf"), ("ctranslate2", "ctranslate2")]
)
def test_without_the_extra_the_command_that_brings_it_is_named(
    student_folder: Path,
    tmp_path: Path,
    sentences: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    exporter: str,
    library: str,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf'pip install "emb-distill\[{exporter}\]"'):
        export(student_folder, out=tmp_path / "out", exporter=exporter, calibration_texts=sentences)
    assert (
        console.run(cli, ["export", str(student_folder), "--out", str(tmp_path / "out"), "--exporter", exporter]) == 2
    )
    assert f"emb-distill[{exporter}]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_one_among_several_is_said(student_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^exporter dynamo: unknown"):
        export(student_folder, out=tmp_path / "out", exporter=("emb", "dynamo"))


@pytest.fixture
def foreign(bert_folder: Path, tmp_path: Path) -> Path:
    """An artifact that lists a file of CTranslate2's, whatever is in it."""
    folder = Path(shutil.copytree(bert_folder, tmp_path / "foreign"))
    (folder / "ctranslate2").mkdir()
    (folder / CTRANSLATE2).write_bytes(b"not a model")
    (folder / "ctranslate2" / "config.json").write_text("{}", encoding="utf-8")
    model = load_model(folder)
    Manifest(
        Kind.ENCODER, model.layers, model.dim, "mean", True, 64, variants=[Variant(CTRANSLATE2, exporter="ctranslate2")]
    ).save(folder)
    return folder


def test_a_file_whose_runtime_is_missing_names_the_extra_and_is_not_called_bad(
    foreign: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    for open_it in (lambda: load(foreign, file=CTRANSLATE2), lambda: validate(foreign, texts=sentences)):
        with pytest.raises(MissingExtra, match=r'pip install "emb-distill\[ctranslate2\]"'):
            open_it()
    assert Manifest.load(foreign).variants[0].passed is None


def test_every_file_of_theirs_is_hashed_and_counted(foreign: Path) -> None:
    manifest = Manifest.load(foreign)
    assert {CTRANSLATE2, "ctranslate2/config.json"} <= set(manifest.files)
    assert bytes_of(foreign, CTRANSLATE2) == len(b"not a model") + len("{}")
    (foreign / "ctranslate2" / "config.json").write_text("{ }", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"ctranslate2/config\.json"):
        manifest.verify(foreign)


def test_the_runtime_follows_from_the_name() -> None:
    files = {"onnx/model.onnx": "onnxruntime", OPENVINO: "openvino", OPENVINO8: "openvino", CTRANSLATE2: "ctranslate2"}
    assert {file: library_of(file) for file in files} == files


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_the_head_in_numpy_is_the_head_in_torch(pooling: str) -> None:
    generator = np.random.default_rng(0)
    states, lengths = generator.normal(size=(4, 7, 8)).astype(np.float32), np.array([7, 1, 4, 2])
    weights = [generator.normal(size=shape).astype(np.float32) for shape in ((12, 8), (5, 12))]
    head = Head(
        pooling,
        (
            Dense(weights[0], np.ones(12, np.float32), ACTIVATIONS["Tanh"]),
            Dense(weights[1], None, ACTIVATIONS["Identity"]),
        ),
        3,
        True,
    )
    mask = torch.from_numpy((np.arange(7) < lengths[:, None]).astype(np.int64))
    pooled = pool(torch.from_numpy(states), mask, pooling)
    expected = torch.tanh(pooled @ torch.from_numpy(weights[0]).T + 1) @ torch.from_numpy(weights[1]).T
    expected = torch.nn.functional.normalize(expected[:, :3], dim=-1)
    difference = np.abs(head(states, lengths) - expected.numpy())
    print(f"{pooling}: max {difference.max():.1e}, mean {difference.mean():.1e}")
    assert difference.max() < 1e-6


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_those_of_torch(name: str) -> None:
    values = np.linspace(-3, 3, 50, dtype=np.float32)
    np.testing.assert_allclose(
        ACTIVATIONS[name](values), getattr(torch.nn, name)()(torch.from_numpy(values)).numpy(), atol=1e-6
    )


def test_a_text_without_tokens_gets_numbers() -> None:
    for pooling in ("mean", "cls", "lasttoken"):
        assert np.isfinite(Head(pooling, (), 4, True)(np.ones((1, 1, 4), np.float32), np.array([0]))).all()


@pytest.fixture(scope="module")
def two_dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with two projections, one with a bias and an activation behind it."""
    place = tmp_path_factory.mktemp("two")
    start = load_model(tiny_bert(place / "base"))
    torch.manual_seed(1)
    head = torch.nn.Sequential(torch.nn.Linear(32, 40), torch.nn.Tanh(), torch.nn.Linear(40, 24, bias=False))
    save_model(EmbeddingModel(start.encoder, start.hf_tokenizer, start.spec, {3: head}), place / "model")
    return place / "model"


def _exported(source: Path, out: Path, sentences: list[str], int8: bool, exporters: tuple[str, ...] = BOTH) -> Path:
    for name in exporters:
        with unreported():
            pytest.importorskip({"openvino": "nncf"}.get(name, name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "schemes", lambda *given: schemes(*given)[:1])
        patch.setattr(select, "ROUNDS", 1)
        [folder] = export(
            source,
            dims=[16],
            int8=int8,
            exporter=exporters,
            out=out,
            calibration_texts=sentences,
            threads=1,
            min_cosine=0.9,
        )
    return folder


@pytest.fixture(scope="module")
def whole(student_folder: Path, sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3x16 slice with both toolchains' files in fp32."""
    return _exported(student_folder, tmp_path_factory.mktemp("fp32") / "slice", sentences, int8=False)


@pytest.fixture(scope="module")
def eight(student_folder: Path, sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in 8 bits."""
    return _exported(student_folder, tmp_path_factory.mktemp("int8") / "slice", sentences, int8=True)


@pytest.mark.interop
def test_their_files_stand_beside_ours(whole: Path, eight: Path) -> None:
    for folder, openvino in ((whole, OPENVINO), (eight, OPENVINO8)):
        assert {path.name for path in (folder / "openvino").iterdir()} == {
            Path(openvino).name,
            Path(openvino).with_suffix(".bin").name,
        }
        assert {path.name for path in (folder / "ctranslate2").iterdir()} == {
            "model.bin",
            "config.json",
            "vocabulary.json",
        }
        manifest = Manifest.load(folder)
        manifest.verify(folder)
        assert {each.file: each.exporter for each in manifest.variants if each.exporter != "emb"} == {
            openvino: "openvino",
            CTRANSLATE2: "ctranslate2",
        }
        assert {openvino.replace(".xml", ".bin"), "ctranslate2/vocabulary.json"} <= set(manifest.files)
        assert {"openvino", "nncf", "ctranslate2"} <= set(manifest.lineage.export.versions)
        assert load(folder).variant.exporter == "emb"  # type: ignore[attr-defined]
    assert [Manifest.load(eight).variant(file).quantizer for file in (OPENVINO8, CTRANSLATE2)] == [
        "nncf",
        "int8_float32",
    ]
    assert all(
        bytes_of(eight, few) < bytes_of(whole, many)
        for few, many in ((OPENVINO8, OPENVINO), (CTRANSLATE2, CTRANSLATE2))
    )


@pytest.mark.interop
@pytest.mark.parametrize("file", [OPENVINO, CTRANSLATE2])
@pytest.mark.parametrize("threads", [1, 2])
def test_their_fp32_gives_the_finished_vectors(whole: Path, sentences: list[str], file: str, threads: int) -> None:
    expected = load(whole, backend="torch").encode_query(sentences)
    encoder = load(whole, file=file, threads=threads)
    np.testing.assert_allclose(encoder.encode_query(sentences), expected, atol=3e-6)
    # Several batches.
    np.testing.assert_allclose(encoder.encode_query(sentences, tokens_per_batch=40), expected, atol=3e-6)
    ids = encoder.tokenizer.encode(sentences, encoder.prompts["query"])
    np.testing.assert_allclose(encoder.encode_ids(ids, side="left"), expected, atol=3e-6)
    np.testing.assert_allclose(
        np.concatenate([encoder.encode_query([text]) for text in sentences]), expected, atol=3e-6
    )


def _encoded(encoder: Encoder, texts: list[str], budget: int) -> np.ndarray[Any, Any]:
    return encoder.encode(texts, tokens_per_batch=budget)


@pytest.mark.interop
def test_ways_of_calling_one_encoder_from_many_threads_agree(whole: Path, sentences: list[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for file in (OPENVINO, CTRANSLATE2):
        encoder = load(whole, file=file, threads=2)
        expected = encoder.encode(sentences)
        with ThreadPoolExecutor(4) as threads:
            budgets = [20, 40, 80, 1000] * 3
            encode = partial(_encoded, encoder, sentences)
            for found in threads.map(encode, budgets):
                np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.interop
@pytest.mark.parametrize("file", [OPENVINO8, CTRANSLATE2])
def test_their_int8_is_near(eight: Path, sentences: list[str], file: str) -> None:
    expected = load(eight, backend="torch").encode_query(sentences)
    found = cosines(expected, load(eight, file=file).encode_query(sentences))
    assert found.min() > 0.9
    assert found.min() < 0.99999  # it is quantised


@pytest.mark.interop
def test_they_need_no_torch_and_ours_needs_neither(whole: Path) -> None:
    code = (
        "import sys, emb\nencoder = emb.load({folder!r}, file={file!r}, threads=2); encoder.encode(['a text',"
        " 'another'] * 40, tokens_per_batch=64)\nprint(sorted({{'torch', 'nncf', 'transformers', 'openvino',"
        " 'ctranslate2'}} & set(sys.modules)))"
    )
    for file, expected in ((OPENVINO, ["openvino"]), (CTRANSLATE2, ["ctranslate2"]), ("onnx/model.onnx", [])):
        done = subprocess.run(
            [sys.executable, "-c", code.format(folder=str(whole), file=file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == str(expected), done.stderr


@pytest.mark.interop
def test_openvino_and_nncf_tell_nobody(whole: Path, tmp_path: Path) -> None:
    code = (
        "import sys, emb\n"
        "from emb.export.toolchains.openvino_files import require_openvino\n"
        f"emb.load({str(whole)!r}, file={OPENVINO!r}); require_openvino()\n"
        "import nncf, openvino\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=home)
    assert done.stdout.strip() == "[]", done.stderr
    assert not (tmp_path / "intel").exists()  # where it counts


@pytest.mark.interop
def test_the_report_holds_all_and_gates_all_settings(whole: Path, tmp_path: Path, sentences: list[str]) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    report = validate(folder, texts=sentences, threads=1)
    assert report.passed, report
    found = {each.file: each for each in report.variants}
    assert {each.exporter for each in found.values()} == {"emb", *BOTH}
    for file in (OPENVINO, CTRANSLATE2):
        assert found[file].ungated == []
        assert found[file].settings["mixed, left padding"]["min_cosine"] > 0.99999  # type: ignore[operator]
        assert found[file].bytes == bytes_of(folder, file)
        assert found[file].speed["texts_per_second"] > 0
    assert {"onnxruntime", "openvino", "ctranslate2"} <= set(report.machine)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Beside another exporter" in page
    assert "fp32, openvino" in page


@pytest.mark.interop
def test_a_failing_gate_marks_their_file_and_the_exit_code_is_1(
    eight: Path, tmp_path: Path, sentences: list[str]
) -> None:
    folder = Path(shutil.copytree(eight, tmp_path / "copy"))
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences), encoding="utf-8")
    assert console.run(cli, ["validate", str(folder), "--data", str(texts), "--min-cosine", "1", "--threads", "1"]) == 1
    marked = {each.file: each.passed for each in Manifest.load(folder).variants}
    assert marked[OPENVINO8] is False
    assert marked[CTRANSLATE2] is False


@pytest.mark.interop
def test_several_projections_are_computed_behind_ctranslate2(
    two_dense: Path, tmp_path: Path, sentences: list[str]
) -> None:
    folder = _exported(two_dense, tmp_path / "out", sentences, False, ("ctranslate2",))
    expected = load(folder, backend="torch").encode(sentences)
    np.testing.assert_allclose(load(folder, file=CTRANSLATE2).encode(sentences), expected, atol=3e-6)
    # The projections stand in the folder's modules, and count.
    assert bytes_of(folder, CTRANSLATE2) > sum(path.stat().st_size for path in (folder / "ctranslate2").iterdir())


@pytest.mark.interop
def test_the_same_folder_gives_the_same_bytes(bert_folder: Path, tmp_path: Path, sentences: list[str]) -> None:
    first, second = (_exported(bert_folder, tmp_path / name, sentences, False) for name in ("first", "second"))
    for file in (CTRANSLATE2, OPENVINO.replace(".xml", ".bin")):
        assert (first / file).read_bytes() == (second / file).read_bytes()


@pytest.mark.interop
def test_a_damaged_file_is_said(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    for file in (OPENVINO, CTRANSLATE2):
        (folder / file).write_bytes(b"nothing")
        with pytest.raises(ArtifactError, match="cannot open it"):
            load(folder, file=file)
    (folder / OPENVINO).with_suffix(".bin").unlink()
    with pytest.raises(ArtifactError, match=r"its \.bin is missing"):
        load(folder, file=OPENVINO)


@pytest.mark.interop
def test_an_architecture_that_ctranslate2_does_not_know_is_refused_and_nothing_is_left(
    qwen3_folder: Path, tmp_path: Path, sentences: list[str]
) -> None:
    pytest.importorskip("ctranslate2")
    with pytest.raises(ArtifactError, match=r"ctranslate2 cannot export this model \(it makes no encoder of qwen3"):
        export(qwen3_folder, out=tmp_path / "out", exporter="ctranslate2", calibration_texts=sentences)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.interop
def test_an_activation_that_numpy_has_not_is_refused(two_dense: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    model = load_model(two_dense)
    model.heads["3"] = torch.nn.Sequential(torch.nn.Linear(32, 40), torch.nn.GELU())
    with pytest.raises(ArtifactError, match="activation GELU"):
        with_ctranslate2.check_ctranslate2(model)


@pytest.mark.interop
def test_what_the_library_says_is_told_and_nothing_is_left(
    bert_folder: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with unreported():
        nncf = pytest.importorskip("nncf")

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(nncf, "quantize", fails)
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[:1])
    for module in (small, pipeline):
        monkeypatch.setattr(module, "int8_file", lambda *_: "onnx/model_qint8_avx512_vnni.onnx")
    with pytest.raises(ArtifactError, match=r"openvino cannot export this model \(no such operator\)"):
        export(
            bert_folder, int8=True, exporter="openvino", out=tmp_path / "out", calibration_texts=sentences, threads=1
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.interop
@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "xlm-roberta"])
def test_architectures_of_ctranslate2(name: str, tmp_path: Path, sentences: list[str]) -> None:
    from families import write_family

    folder = _exported(write_family(name, tmp_path / "model"), tmp_path / "out", sentences, False)
    expected = load(folder, backend="torch").encode(sentences)
    for file in (OPENVINO, CTRANSLATE2):
        np.testing.assert_allclose(load(folder, file=file).encode(sentences), expected, atol=1e-5)


@pytest.mark.interop
def test_last_token_pooling_goes_through_openvino(qwen3_folder: Path, tmp_path: Path, sentences: list[str]) -> None:
    folder = _exported(qwen3_folder, tmp_path / "out", sentences, False, ("openvino",))
    expected = load(folder, backend="torch").encode_query(sentences)
    encoder = load(folder, file=OPENVINO)
    np.testing.assert_allclose(encoder.encode_query(sentences), expected, atol=1e-5)
    np.testing.assert_allclose(
        encoder.encode_ids(encoder.tokenizer.encode(sentences, encoder.prompts["query"]), side="left"),
        expected,
        atol=1e-5,
    )
