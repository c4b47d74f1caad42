"""emb doctor: a sound artifact suits every client, and each thing that breaks one is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import emb
from emb.artifact.manifest import Manifest, Variant
from emb.errors import ArtifactError
from emb.publish.doctor import examine, line


@pytest.fixture(scope="module")
def artifact(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    [folder] = emb.export(
        student_folder, layers=[2], dims=[16], out=tmp_path_factory.mktemp("doctor") / "artifact", threads=1
    )
    return folder


def _edit(path: Path, **values: Any) -> None:
    path.write_text(
        json.dumps({key: value for key, value in (json.loads(path.read_text()) | values).items() if value is not None})
    )


def _write(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _rename_modules(path: Path) -> None:
    path.write_text(
        path.read_text().replace(
            "sentence_transformers.models.Dense", "sentence_transformers.sentence_transformer.modules.Dense"
        )
    )


def _keep_one_output(folder: Path, name: str) -> None:
    model = onnx.load(str(folder / "onnx/model.onnx"))
    kept = [output for output in model.graph.output if output.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, str(folder / "onnx/model.onnx"))


def test_a_fresh_export_suits_everyone(artifact: Path) -> None:
    assert {found.client: found.problems for found in examine(artifact) if found.problems} == {}


OPTIMUM, PLAIN = "sentence-transformers, ONNX (optimum-onnx)", "onnxruntime and tokenizers"
CPU, GPU = "text-embeddings-inference, CPU", "text-embeddings-inference, GPU"
BROKEN: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "no graph": (
        lambda folder: (folder / "onnx/model.onnx").unlink(),
        {OPTIMUM, "fastembed", "transformers.js", CPU, PLAIN},
    ),
    "no token vectors": (lambda folder: _keep_one_output(folder, "sentence_embedding"), {OPTIMUM}),
    "no text vectors": (
        lambda folder: _keep_one_output(folder, "last_hidden_state"),
        {"fastembed", "transformers.js", CPU},
    ),
    "another limit": (
        lambda folder: _edit(folder / "tokenizer_config.json", max_length=7),
        {"fastembed", "transformers.js"},
    ),
    "no pad token": (lambda folder: _edit(folder / "tokenizer_config.json", pad_token=None), {"fastembed"}),
    "a new pooling schema only": (
        lambda folder: _edit(folder / "1_Pooling/config.json", pooling_mode_mean_tokens=None),
        {CPU, GPU},
    ),
    "no pooling at all": (
        lambda folder: _edit(folder / "1_Pooling/config.json", pooling_mode_mean_tokens=False),
        {CPU, GPU},
    ),
    "no model type": (lambda folder: _edit(folder / "config.json", model_type=None), {"transformers.js", CPU, GPU}),
    "no width": (lambda folder: _edit(folder / "config.json", hidden_size=None), {CPU}),
    "several ends": (lambda folder: _edit(folder / "config.json", eos_token_id=[1, 2]), {CPU}),
    "a null pad token": (lambda folder: _write(folder / "config.json", pad_token_id=None), {CPU, GPU}),
    "a classifier": (
        lambda folder: _edit(folder / "config.json", architectures=["BertForSequenceClassification"]),
        {CPU, GPU},
    ),
    "too few positions": (lambda folder: _edit(folder / "config.json", max_position_embeddings=32), {CPU, GPU}),
    "a strange encoder": (lambda folder: _edit(folder / "config.json", model_type="electra"), {GPU}),
    "no rope": (lambda folder: _edit(folder / "config.json", model_type="qwen3"), {GPU}),
    "no limit": (lambda folder: _edit(folder / "sentence_bert_config.json", max_seq_length=None), {CPU, GPU}),
    "a null prompt": (
        lambda folder: _edit(folder / "config_sentence_transformers.json", prompts={"query": None}),
        {CPU, GPU},
    ),
    "a graph in the root": (lambda folder: (folder / "model.onnx").write_bytes(b""), {CPU}),
    "data under another name": (lambda folder: (folder / "onnx/model.onnx.data").write_bytes(b""), {CPU}),
    "no projection": (lambda folder: (folder / "2_Dense/model.safetensors").unlink(), {"sentence-transformers", GPU}),
    "a strange activation": (
        lambda folder: _edit(folder / "2_Dense/config.json", activation_function="torch.nn.modules.activation.ReLU"),
        {GPU},
    ),
    "no word on bias": (lambda folder: _edit(folder / "2_Dense/config.json", bias=None), {GPU}),
    "module types of today": (lambda folder: _rename_modules(folder / "modules.json"), {GPU}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_client_is_found(artifact: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    damage, expected = BROKEN[name]
    damage(folder)
    found = {found.client: found.problems for found in examine(folder)}
    if name not in ("a graph in the root", "data under another name"):
        assert found["emb"]  # the hashes no longer agree
    found.pop("emb")
    assert {client for client, problems in found.items() if problems} == expected


def test_the_line_that_opens_it_names_a_file_that_is_there(artifact: Path) -> None:
    manifest = Manifest.load(artifact)
    assert line("emb", manifest, "me/tiny") == "emb.load('me/tiny')"
    assert "{ dtype: 'fp32' }" in line("transformers.js", manifest, "me/tiny")
    manifest.variants.append(Variant("onnx/model_quantized.onnx", "int8"))
    assert "{ dtype: 'q8' }" in line("transformers.js", manifest, "me/tiny")


def test_a_plain_folder_is_no_artifact(bert_folder: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact"):
        examine(bert_folder)
