"""Encoders: one interface over torch and ONNX, and a runtime that needs no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from emb.artifact.manifest import Manifest
from emb.errors import ArtifactError, UsageError
from emb.export import export
from emb.runtime.encoder import load
from emb.runtime.sessions import Runner


@pytest.fixture(scope="module")
def artifact(student_folder: Path, sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    [folder] = export(
        student_folder, layers=[2], dims=[16], out=tmp_path_factory.mktemp("out") / "slice", calibration_texts=sentences
    )
    return folder


def test_vectors_do_not_depend_on_the_threads(artifact: Path, sentences: list[str]) -> None:
    one, four = (load(artifact, threads=threads).encode(sentences, tokens_per_batch=64) for threads in (1, 4))
    assert np.allclose(one, four, atol=1e-6)


def test_threads_that_encode_beside_each_other_get_the_same_vectors(artifact: Path, sentences: list[str]) -> None:
    encoder = load(artifact, threads=2)
    rows = encoder.tokenizer.encode(sentences)
    expected = encoder.encode_ids(rows)
    assert encoder.workers == 2
    with ThreadPoolExecutor(encoder.workers) as pool:
        asked = [pool.submit(encoder.encode_ids, rows, tokens_per_batch=64, here=True) for _ in range(8)]
        alone = [pool.submit(encoder.encode_ids, [row], here=True) for row in rows]
        for each in asked:
            np.testing.assert_allclose(each.result(), expected, atol=3e-6)
        np.testing.assert_allclose(np.concatenate([each.result() for each in alone]), expected, atol=3e-6)


def test_a_thread_that_encodes_here_waits_for_no_other(
    artifact: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(artifact, threads=2)
    monkeypatch.setattr(encoder.runner, "run", None)
    monkeypatch.setattr(encoder.runner, "run_each", None)
    for count in (1, len(sentences)):
        assert len(encoder.encode_ids(encoder.tokenizer.encode(sentences[:count]), here=True)) == count


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_workers_are_threads_of_the_processor(artifact: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(artifact, backend=backend, threads=3)
    assert encoder.workers == (3 if backend == "onnx" else 1)
    monkeypatch.setattr(encoder, "provider", "CUDAExecutionProvider", raising=False)
    assert encoder.workers == 1, "a device of its own takes a batch of all at once"


def test_a_short_text_and_a_long_batch_have_sessions_of_their_own_and_the_same_vectors(
    artifact: Path, sentences: list[str]
) -> None:
    runner = Runner(artifact / "onnx" / "model.onnx", 2)
    tokenizer = load(artifact).tokenizer
    batch = tokenizer.pad(tokenizer.encode(sentences))
    assert batch[0].size > 64
    [short] = runner.run((batch[0][:1], batch[1][:1]))
    assert "_patient" not in vars(runner)
    np.testing.assert_allclose(runner.run(batch)[0], short, atol=3e-6)
    assert "_patient" in vars(runner)


@pytest.mark.parametrize("kind", ["query", "document"])
def test_torch_and_onnx_give_the_same_vectors(artifact: Path, sentences: list[str], kind: str) -> None:
    served, torch = load(artifact), load(artifact, backend="torch")
    assert type(served).__name__ == "ArtifactEncoder"
    difference = np.abs(served.encode(sentences, kind=kind) - torch.encode(sentences, kind=kind))
    print(f"max {difference.max():.2e}, mean {difference.mean():.2e}")
    assert difference.max() < 3e-6


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_same_vectors_whatever_the_batch(artifact: Path, sentences: list[str], backend: str) -> None:
    encoder = load(artifact, backend=backend)
    alone = np.concatenate([encoder.encode([text]) for text in sentences])
    np.testing.assert_allclose(encoder.encode(sentences), alone, atol=3e-6)
    np.testing.assert_allclose(encoder.encode(sentences, tokens_per_batch=64), alone, atol=3e-6)


def test_the_finished_vector_is_found_by_its_name(artifact: Path, tmp_path: Path, sentences: list[str]) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "reversed"))
    graph = onnx.load(str(folder / "onnx/model.onnx"))
    outputs = list(reversed(graph.graph.output))
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)
    onnx.save(graph, str(folder / "onnx/model.onnx"))
    assert [output.name for output in outputs] == ["last_hidden_state", "sentence_embedding"]
    np.testing.assert_array_equal(load(folder, verify=False).encode(sentences), load(artifact).encode(sentences))


def test_prompts_differ_by_kind(artifact: Path) -> None:
    encoder = load(artifact)
    np.testing.assert_allclose(encoder.encode_query(["rain"]), encoder.encode_document(["query: rain"]), atol=1e-6)
    assert np.abs(encoder.encode_query(["rain"]) - encoder.encode_document(["rain"])).max() > 1e-3


def test_dim_cuts_and_normalises_again(artifact: Path, sentences: list[str]) -> None:
    encoder = load(artifact)
    whole, cut = encoder.encode(sentences), encoder.encode(sentences, truncate_dim=5)
    assert cut.shape == (len(sentences), 5)
    np.testing.assert_allclose(cut, whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True), atol=1e-6)


def test_no_text_gives_no_vector(artifact: Path) -> None:
    assert load(artifact).encode([]).shape == (0, 16)
    assert load(artifact).encode([], truncate_dim=4).shape == (0, 4)


@pytest.mark.parametrize("text", ["", " ", "x" * 5000, "\x00", "😀", "العربية"])
def test_odd_texts_give_finite_vectors(artifact: Path, text: str) -> None:
    vector = load(artifact).encode([text])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_one_string_gives_one_vector(artifact: Path) -> None:
    encoder = load(artifact)
    alone = encoder.encode("rain", kind="query")
    assert encoder.get_sentence_embedding_dimension() == 16
    assert alone.shape == (16,)
    np.testing.assert_array_equal(alone, encoder.encode(["rain"], kind="query")[0])
    assert encoder.encode_query("rain").shape == encoder.encode_document("rain").shape == (16,)


def test_batch_size_limits_batches_and_changes_no_vector(
    artifact: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(artifact, threads=1)
    whole, sizes, run = encoder.encode(sentences), [], encoder.runner.run
    monkeypatch.setattr(encoder.runner, "run", lambda batch: sizes.append(len(batch[0])) or run(batch))
    np.testing.assert_allclose(encoder.encode(sentences, batch_size=3), whole, atol=3e-6)
    assert (max(sizes), sum(sizes)) == (3, len(sentences))


@pytest.mark.parametrize("measure", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity_is_the_models_own(measure: str, bert_folder: Path, tmp_path: Path, sentences: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    path = folder / "config_sentence_transformers.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"similarity_fn_name": measure}), encoding="utf-8"
    )
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), load(folder)
    assert ours.similarity_fn_name == measure
    a, b = theirs.encode(sentences[:4]), 2 * theirs.encode(sentences[4:])
    np.testing.assert_allclose(ours.similarity(a, b), theirs.similarity(a, b), atol=2e-5)
    assert ours.similarity(a[0], b[0]).shape == (1, 1)
    [artifact] = export(folder, out=tmp_path / "out", calibration_texts=sentences)
    assert load(artifact).similarity_fn_name == measure


def test_it_stands_in_for_a_sentence_transformer(bert_folder: Path, sentences: list[str]) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    theirs, ours = SentenceTransformer(str(bert_folder), device="cpu"), load(bert_folder)
    for options in (
        {"show_progress_bar": False, "batch_size": 4},
        {"prompt": "query: "},
        {"normalize_embeddings": True},
        {"truncate_dim": 7, "normalize_embeddings": True},
    ):
        np.testing.assert_allclose(ours.encode(sentences, **options), theirs.encode(sentences, **options), atol=3e-6)
    tensor = ours.encode(sentences, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.shape == (len(sentences), ours.dim)
    with pytest.raises(UsageError, match="one array"):
        ours.encode(sentences, convert_to_numpy=False)


def test_stored_vectors_of_a_model_without_length_one_are_not_normalised_in_silence(
    bert_folder: Path, tmp_path: Path, sentences: list[str]
) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(
        json.dumps([one for one in modules if "Normalize" not in one["type"]]), encoding="utf-8"
    )
    [artifact] = export(folder, vectors=["int8"], out=tmp_path / "out", calibration_texts=sentences)
    with pytest.raises(UsageError, match="int8 vectors cannot be normalised"):
        load(artifact, file="onnx/model_vectors_int8.onnx").encode(sentences, normalize_embeddings=True)
    assert np.linalg.norm(load(artifact).encode(sentences, normalize_embeddings=True), axis=1) == pytest.approx(
        1, abs=1e-5
    )


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_file_that_was_changed_is_not_encoded_with(artifact: Path, tmp_path: Path, backend: str) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "changed"))
    vector = load(folder, backend=backend).encode("rain")
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(ArtifactError, match="changed since it was written: tokenizer_config"):
        load(folder, backend=backend)
    np.testing.assert_array_equal(load(folder, backend=backend, verify=False).encode("rain"), vector)


@pytest.mark.parametrize(("backend", "other"), [("onnx", "model.safetensors"), ("torch", "onnx/model.onnx")])
def test_only_what_is_read_is_hashed(artifact: Path, tmp_path: Path, backend: str, other: str) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "changed"))
    (folder / other).unlink()
    assert load(folder, backend=backend).encode("rain").shape == (16,)


def test_emb_json_covers_itself(artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "changed"))
    value = json.loads((folder / "emb.json").read_text(encoding="utf-8"))
    (folder / "emb.json").write_text(json.dumps(value | {"prompts": {"query": "other: "}}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"changed since it was written: emb\.json"):
        load(folder)
    assert load(folder, verify=False).prompts == {"query": "other: "}
    del value["digest"]  # as versions before it wrote them
    (folder / "emb.json").write_text(json.dumps(value), encoding="utf-8")
    assert load(folder).encode("rain").shape == (16,)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_device_that_is_not_there_is_an_error(artifact: Path, backend: str) -> None:
    with pytest.raises(UsageError, match="device 'tpu'"):
        load(artifact, backend=backend, device="tpu")
    with pytest.raises(UsageError, match="TensorrtExecutionProvider is not usable"):
        load(artifact, provider="TensorrtExecutionProvider")
    with pytest.raises(UsageError, match="torch has no providers"):
        load(artifact, backend="torch", provider="CPUExecutionProvider")
    assert load(artifact, provider="CPUExecutionProvider").runner.session.get_providers() == ["CPUExecutionProvider"]


def test_bad_arguments_are_named(artifact: Path) -> None:
    encoder = load(artifact)
    with pytest.raises(UsageError, match="kind 'passage'"):
        encoder.encode(["a"], kind="passage")
    with pytest.raises(UsageError, match=r"^truncate_dim 17: the model has"):
        encoder.encode(["a"], truncate_dim=17)
    with pytest.raises(UsageError, match="NoneType at item 1"):
        encoder.encode(["a", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="batch_size 0"):
        encoder.encode(["a"], batch_size=0)


def test_a_variant_that_failed_is_not_taken_by_itself(artifact: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(artifact, tmp_path / "failed")
    manifest = Manifest.load(folder)
    manifest.variants[0].passed = False
    manifest.save(folder)
    assert type(load(folder)).__name__ == "TorchEncoder"
    assert load(folder, file="onnx/model.onnx").encode(["a"]).shape == (1, 16)
    with pytest.raises(ArtifactError, match="no ONNX file that passed"):
        load(folder, backend="onnx")


def test_bad_folders_are_named(artifact: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(ArtifactError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="not a variant"):
        load(artifact, file="onnx/other.onnx")
    with pytest.raises(UsageError, match="backend 'jax'"):
        load(artifact, backend="jax")
    broken = shutil.copytree(artifact, tmp_path / "broken")
    (broken / "onnx" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match="onnxruntime cannot open it"):
        load(broken, verify=False)


def test_any_sentence_transformers_folder_opens(bert_folder: Path, sentences: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(sentences)
    np.testing.assert_allclose(load(bert_folder).encode(sentences), expected, atol=3e-6)


def test_serving_imports_no_torch(artifact: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sentence_transformers', 'onnx'): sys.modules[name] = None\n"
        "from emb.runtime.encoder import load\n"
        f"assert load({str(artifact)!r}).encode_query(['a text']).shape == (1, 16)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("told", [None, "0"])
def test_onnxruntime_tells_nobody_unless_it_is_told_to(artifact: Path, tmp_path: Path, told: str | None) -> None:
    code = f"import os, emb; emb.load({str(artifact)!r}).encode('x'); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    ours = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    given = ours | {"HOME": str(tmp_path)} | ({} if told is None else {"ORT_DISABLE_TELEMETRY": told})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=given)
    assert done.stdout.strip() == (told or "1"), done.stderr
    if told is None:
        assert not (tmp_path / ".cache").exists()  # where it keeps the name by which it knows a machine again
