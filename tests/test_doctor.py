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
from emb.doctor import examine
from emb.errors import ArtifactError


@pytest.fixture(scope="module")
def artifact(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    [folder] = emb.export(student_folder, layers=[2], dims=[16], out=tmp_path_factory.mktemp("doctor") / "artifact", threads=1)
    return folder


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({key: value for key, value in (json.loads(path.read_text()) | values).items() if value is not None}))


def _keep_one_output(folder: Path, name: str) -> None:
    model = onnx.load(str(folder / "onnx/model.onnx"))
    kept = [output for output in model.graph.output if output.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, str(folder / "onnx/model.onnx"))


def test_a_fresh_export_suits_everyone(artifact: Path) -> None:
    assert {found.client: found.problems for found in examine(artifact) if found.problems} == {}


OPTIMUM, TEI, PLAIN = "sentence-transformers, ONNX (optimum-onnx)", "text-embeddings-inference", "onnxruntime and tokenizers"
BROKEN: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "no graph": (lambda folder: (folder / "onnx/model.onnx").unlink(), {OPTIMUM, "fastembed", "transformers.js", TEI, PLAIN}),
    "no token vectors": (lambda folder: _keep_one_output(folder, "sentence_embedding"), {OPTIMUM}),
    "no text vectors": (lambda folder: _keep_one_output(folder, "last_hidden_state"), {"fastembed", "transformers.js", TEI}),
    "another limit": (lambda folder: _edit(folder / "tokenizer_config.json", max_length=7), {"fastembed", "transformers.js"}),
    "no pad token": (lambda folder: _edit(folder / "tokenizer_config.json", pad_token=None), {"fastembed"}),
    "a new pooling schema only": (lambda folder: _edit(folder / "1_Pooling/config.json", pooling_mode_mean_tokens=None), {TEI}),
    "no model type": (lambda folder: _edit(folder / "config.json", model_type=None), {"transformers.js"}),
    "no projection": (lambda folder: (folder / "2_Dense/model.safetensors").unlink(), {"sentence-transformers"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_client_is_found(artifact: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    damage, expected = BROKEN[name]
    damage(folder)
    found = {found.client: found.problems for found in examine(folder)}
    assert found.pop("emb")  # the hashes no longer agree
    assert {client for client, problems in found.items() if problems} == expected


def test_a_plain_folder_is_no_artifact(bert_folder: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact"):
        examine(bert_folder)
