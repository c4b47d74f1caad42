"""Static models, a row per token and no layers: teacher, student, export and proof as for any other."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, StaticEmbedding
from tiny import SENTENCES, tiny_bert, write_wordpiece
from tokenizers import Tokenizer

import emb
from emb.artifact.manifest import Manifest
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import load_model, save_model
from emb.model.static import MAX_LENGTH
from emb.publish.card import card
from emb.publish.doctor import examine
from emb.publish.published_artifact import PublishedArtifact
from emb.similarity import cosines

TEXTS = ["yes", "", "How do I open a file for reading in Python?", "the cat and the rain and the old bridge " * 20]


def _static(folder: Path, window: int | None = None, side: str = "right", dim: int = 32) -> Path:
    write_wordpiece(folder / "tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    tokenizer.no_truncation()
    if window:
        tokenizer.enable_truncation(window, direction=side)
    torch.manual_seed(0)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=dim), Normalize()], device="cpu").save(
        str(folder / "model")
    )
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static model whose tokenizer names no window."""
    return _static(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts put together from the tokenizer's words."""
    rng, words = random.Random(0), " ".join(SENTENCES).split()
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(" ".join(rng.choices(words, k=rng.randint(3, 20))) for _ in range(300)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("window", "side"), [(None, "right"), (8, "right"), (8, "left")])
def test_no_special_token_is_read_and_the_tokenizer_s_own_window_is_kept(
    window: int | None, side: str, tmp_path: Path
) -> None:
    place = _static(tmp_path, window, side)
    expected = SentenceTransformer(str(place), device="cpu").encode(TEXTS)
    model = load_model(place)
    assert (model.layers, model.spec.max_length) == (0, window or MAX_LENGTH)
    assert [len(row) for row in model.tokenizer().encode(["", "the cat"])] == [0, 2]
    save_model(model, tmp_path / "saved")
    for each in (place, tmp_path / "saved"):
        np.testing.assert_allclose(emb.load(each).encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(
        SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS), expected, atol=1e-6
    )


def test_a_file_of_model2vec_is_read(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "model2vec"))
    expected = emb.load(place).encode(TEXTS)
    weights = next(place.rglob("model.safetensors"))
    [rows] = load_file(weights).values()
    save_file({"embeddings": rows.half().contiguous()}, weights)  # as potion-base-8M has them
    assert cosines(emb.load(place).encode(TEXTS[2:]), expected[2:]).min() > 0.9999


def test_what_is_exported_is_the_same_and_passes(folder: Path, tmp_path: Path) -> None:
    [artifact] = emb.export(folder, dims=[16], int8=True, out=tmp_path / "out", calibration_texts=SENTENCES * 2)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)[:, :16]
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(emb.load(artifact, file="onnx/model.onnx").encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(SentenceTransformer(str(artifact), device="cpu").encode(TEXTS), expected, atol=1e-6)
    assert emb.validate(artifact, texts=SENTENCES).passed
    quantization = Manifest.load(artifact).lineage.quantization
    assert quantization is not None
    assert [each.name for each in quantization.candidates] == ["tables"], "without a matrix all schemes are one"
    loads = {finding.client: not finding.problems for finding in examine(artifact)}
    assert [client for client, does in loads.items() if not does] == [
        name for name in loads if "optimum" in name or "text-embeddings-inference" in name
    ]
    assert "A static text encoder (a row per token, no layers)" in card(PublishedArtifact.read(artifact))


def test_a_static_student_learns_its_table(folder: Path, texts: Path, tmp_path: Path) -> None:
    teacher = tiny_bert(tmp_path / "teacher")
    found = emb.distill(
        teacher=str(teacher),
        student=str(folder),
        data=[str(texts)],
        out=tmp_path / "run",
        max_steps=30,
        overrides={"training": {"lr": 0.05}},
    )
    manifest = Manifest.load(tmp_path / "run" / "student")
    assert manifest.layers == 0
    assert manifest.lineage.recipe["training"]["train_token_embeddings"] is True
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [line["cosine"]["0x32"] for line in log if "cosine" in line]
    assert scores[-1] > scores[0] > 0
    assert found.scores[-1].cosine == pytest.approx(scores[-1], abs=1e-3)
    sizes = {
        path.parent.name: next(iter(load_file(path).values())).shape[0]
        for path in [tmp_path / "run" / "student" / "model.safetensors"]
    }
    assert sizes["student"] == load_model(folder).encoder.config.vocab_size


def test_a_static_teacher_is_learned_from(folder: Path, texts: Path, tmp_path: Path) -> None:
    found = emb.distill(
        teacher=str(folder),
        student=str(tiny_bert(tmp_path / "start")),
        data=[str(texts)],
        out=tmp_path / "run",
        max_steps=4,
    )
    assert found.scores[-1].dim == 32
    with pytest.raises(UsageError, match="has 0 layers") as refused:
        emb.distill(teacher=str(folder), layers=2, data=[str(texts)], out=tmp_path / "other")
    assert "static" in refused.value.hint


def test_a_table_of_fewer_rows_than_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "short"))
    weights = next(place.rglob("model.safetensors"))
    [(name, rows)] = load_file(weights).items()
    save_file({name: rows[:-1].contiguous()}, weights)
    with pytest.raises(ArtifactError, match="the token table has"):
        load_model(place)
