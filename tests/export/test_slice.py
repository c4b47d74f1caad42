"""Slices: the same vectors as the exit they were cut from, in any client."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from emb.artifact.manifest import LayerDimPair, Manifest
from emb.errors import UsageError
from emb.export.pairs import resolve_pairs
from emb.model.embedding_model import load_model, save_model
from emb.model.slice import slice_model
from emb.runtime.torch_encoder import TorchEncoder


@pytest.mark.parametrize("pair", [LayerDimPair(1, 16), LayerDimPair(2, 48), LayerDimPair(3, 8)], ids=str)
def test_slice_is_the_exit_also_in_sentence_transformers(
    student_folder: Path, tmp_path: Path, sentences: list[str], pair: LayerDimPair
) -> None:
    from sentence_transformers import SentenceTransformer

    model = load_model(student_folder)
    expected = TorchEncoder(model, pair).encode(sentences)
    save_model(slice_model(model, pair), tmp_path / "slice")
    loaded = SentenceTransformer(str(tmp_path / "slice"), device="cpu")
    found = loaded.encode(sentences)
    assert found.shape == (len(sentences), pair.dim)
    transformer: Any = loaded[0]
    assert len(transformer.auto_model.encoder.layer) == pair.layers
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("folder", ["bert_folder", "qwen3_folder"])
def test_cut_without_projection_is_in_the_folder(
    folder: str, request: pytest.FixtureRequest, tmp_path: Path, sentences: list[str]
) -> None:
    from sentence_transformers import SentenceTransformer

    model = load_model(request.getfixturevalue(folder))
    whole = TorchEncoder(model).encode(sentences)[:, :9]
    save_model(slice_model(model, LayerDimPair(3, 9)), tmp_path / "slice")
    found = SentenceTransformer(str(tmp_path / "slice"), device="cpu").encode(sentences)
    np.testing.assert_allclose(found, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=2e-6)


def test_activations_behind_projections_are_kept(tmp_path: Path, student_folder: Path, sentences: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    model = load_model(student_folder)
    model.heads = nn.ModuleDict({"3": nn.Sequential(nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 16), nn.Identity())})
    expected = TorchEncoder(model, LayerDimPair(3, 8)).encode(sentences)
    save_model(slice_model(model, LayerDimPair(3, 8)), tmp_path / "slice")
    np.testing.assert_allclose(
        SentenceTransformer(str(tmp_path / "slice"), device="cpu").encode(sentences), expected, atol=2e-6
    )


def test_slicing_leaves_the_model_as_it_was(student_folder: Path, sentences: list[str]) -> None:
    model = load_model(student_folder)
    before = TorchEncoder(model).encode(sentences)
    slice_model(model, LayerDimPair(1, 8))
    assert model.layers == 3
    np.testing.assert_array_equal(TorchEncoder(model).encode(sentences), before)


def test_slice_shares_the_weights(student_folder: Path) -> None:
    model = load_model(student_folder)
    sliced = slice_model(model, LayerDimPair(2, 48))
    owned = {parameter.data_ptr() for parameter in model.parameters()}
    assert all(parameter.data_ptr() in owned for parameter in sliced.parameters())


def test_nothing_asked_is_the_whole_model(student_folder: Path) -> None:
    assert resolve_pairs(load_model(student_folder), Manifest.load(student_folder), [], []) == [LayerDimPair(3, 48)]


def test_several_layers_and_dims_are_every_combination(student_folder: Path) -> None:
    pairs = resolve_pairs(load_model(student_folder), Manifest.load(student_folder), [2, 1], [8, 16])
    assert [str(pair) for pair in pairs] == ["1x8", "1x16", "2x8", "2x16"]


@pytest.mark.parametrize(
    ("layers", "dims", "message"),
    [([3], [49], "^dim 49"), ([3], [0], "^dim 0"), ([4], [], "^layers 4"), ([0], [], "^layers 0")],
)
def test_beyond_the_model_is_refused(student_folder: Path, layers: list[int], dims: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_pairs(load_model(student_folder), Manifest.load(student_folder), layers, dims)


def test_layers_without_a_trained_exit_are_refused(student_folder: Path) -> None:
    model = load_model(student_folder)
    del model.heads["2"]
    with pytest.raises(UsageError, match=r"^layers 2: not trained as an exit") as caught:
        resolve_pairs(model, Manifest.load(student_folder), [2], [])
    assert "1, 3" in caught.value.hint


def test_foreign_model_may_be_cut_with_a_warning(bert_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resolve_pairs(load_model(bert_folder), None, [2], []) == [LayerDimPair(2, 32)]
    assert "nothing was trained after layer 2" in capsys.readouterr().err.replace("\n", " ")


def test_lowercasing_is_kept(qwen3_folder: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(qwen3_folder, tmp_path / "source"))
    config = source / "sentence_bert_config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text(encoding="utf-8")), "do_lower_case": True}), encoding="utf-8"
    )
    save_model(load_model(source), tmp_path / "saved")
    for folder in (source, tmp_path / "saved"):
        upper, lower = load_model(folder).tokenizer().encode(["A Text", "a text"])
        assert upper.tolist() == lower.tolist()
