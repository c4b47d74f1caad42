"""A rotated teacher: every product as it was, what says most in the first dims, and nothing encoded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES, tiny_bert

import emb
from emb.errors import ArtifactError, DataError, UsageError
from emb.model.embedding_model import load_model
from emb.rotation import principal_rotation
from emb.similarity import unit
from emb.teachers.registry import find


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "docs.jsonl"
    rows = [
        {"title": text.split()[0], "text": f"{text} {SENTENCES[-place - 1]}"} for place, text in enumerate(SENTENCES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _vectors(count: int = 200, dim: int = 12) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(0)
    spread = np.geomspace(1, 0.01, dim)[random.permutation(dim)]
    return unit(random.normal(0.3, 1, (count, dim)) * spread @ np.linalg.qr(random.normal(size=(dim, dim)))[0])


def test_it_is_orthonormal_and_keeps_products() -> None:
    vectors = _vectors()
    rotation, energy = principal_rotation(vectors)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(12), atol=1e-6)
    turned = vectors @ rotation.T
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-6)
    np.testing.assert_allclose((turned**2).mean(axis=0), energy, atol=1e-6)
    assert (np.diff(energy) <= 0).all()


def test_second_moments_not_centred() -> None:
    vectors = unit(np.random.default_rng(1).normal(0, 0.1, (300, 8)) + np.eye(8)[3])  # all point one way
    first = principal_rotation(vectors)[0][0]
    assert first[3] > 0.9


def test_the_first_dims_lose_less_than_any_others() -> None:
    vectors = _vectors()
    turned = vectors @ principal_rotation(vectors)[0].T

    def lost(each: np.ndarray[Any, Any]) -> float:
        return float(np.linalg.norm(each[:, :4] @ each[:, :4].T - vectors @ vectors.T))

    assert lost(turned) < 0.5 * lost(vectors)


def test_it_is_the_same_whatever_the_order_of_texts() -> None:
    vectors = _vectors()
    np.testing.assert_allclose(principal_rotation(vectors)[0], principal_rotation(vectors[::-1])[0], atol=1e-4)


def test_too_few_vectors_are_refused() -> None:
    with pytest.raises(DataError, match="too few to find 100 directions"):
        principal_rotation(_vectors(9, 100))


@pytest.mark.parametrize("dim", [None, 24])
def test_the_folder_gives_turned_vectors_in_any_client(
    tmp_path: Path, documents: Path, cache: Path, dim: int | None
) -> None:
    teacher = tiny_bert(tmp_path / "teacher", dim=dim)
    found = emb.rotate(teacher, documents=[documents], out=tmp_path / "rotated")
    plain, turned = (
        SentenceTransformer(str(folder), device="cpu").encode(SENTENCES) for folder in (teacher, found.folder)
    )
    np.testing.assert_allclose(turned @ turned.T, plain @ plain.T, atol=1e-5)
    assert not np.allclose(turned, plain, atol=1e-2)
    energy = (turned**2).mean(axis=0)
    assert energy[:8].sum() > 0.8 > (plain**2).mean(axis=0)[:8].sum()
    assert (found.dim, found.vectors) == (plain.shape[1], len(SENTENCES))


def test_a_teacher_with_an_activation_gets_one_more_projection(tmp_path: Path, documents: Path, cache: Path) -> None:
    teacher = tiny_bert(tmp_path / "teacher", dim=24)
    config = teacher / "2_Dense" / "config.json"
    activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
    config.write_text(json.dumps(json.loads(config.read_text()) | activation))
    out = emb.rotate(teacher, documents=[documents], out=tmp_path / "rotated").folder
    plain, turned = (emb.load(folder).encode(SENTENCES) for folder in (teacher, out))
    np.testing.assert_allclose(turned @ turned.T, plain @ plain.T, atol=1e-5)


def test_what_was_cached_and_indexed_is_turned_not_encoded_again(
    tmp_path: Path, documents: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tiny_bert(tmp_path / "teacher")
    given: dict[str, Any] = {"documents": [documents], "layers": 1, "overrides": {"training.max_steps": 2}}
    emb.distill(str(teacher), out=tmp_path / "plain", **given)
    index = emb.load(teacher).encode(SENTENCES)
    np.save(tmp_path / "index.npy", index)
    moved = [(tmp_path / "index.npy", tmp_path / "moved.npy")]
    out = emb.rotate(teacher, documents=[documents], out=tmp_path / "rotated", moved=moved).folder
    np.testing.assert_allclose(np.load(tmp_path / "moved.npy"), emb.load(out).encode(SENTENCES), atol=1e-5)
    capsys.readouterr()
    student = emb.distill(str(out), out=tmp_path / "run", **given).student
    told = " ".join(capsys.readouterr().err.split())
    assert "are cached" in told
    assert "to encode" not in told
    shutil.rmtree(cache)
    again = emb.distill(str(out), out=tmp_path / "again", **given).student
    one, other = (emb.load(folder).encode(SENTENCES) for folder in (student, again))
    assert (one * other).sum(axis=1).min() > 0.999  # moved vectors are those the rotated teacher gives


@pytest.mark.parametrize("place", ["teacher", "teacher/inside", "."])
def test_the_teacher_itself_is_never_written_over(
    tmp_path: Path, documents: Path, cache: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = tiny_bert(tmp_path / "teacher")
    before = {path: path.read_bytes() for path in sorted(teacher.rglob("*")) if path.is_file()}
    with pytest.raises(UsageError, match="in the way of the teacher"):
        emb.rotate(teacher, documents=[documents], out=tmp_path / place, overwrite=True)
    assert {path: path.read_bytes() for path in sorted(teacher.rglob("*")) if path.is_file()} == before


def test_what_cannot_be_moved_or_is_in_the_way_is_told_first(tmp_path: Path, documents: Path, cache: Path) -> None:
    teacher, index = tiny_bert(tmp_path / "teacher"), tmp_path / "index.npy"

    def moved(vectors: Any, target: str = "new.npy") -> None:
        np.save(index, np.asarray(vectors, np.float32))
        emb.rotate(teacher, documents=[documents], out=tmp_path / "out", moved=[(index, tmp_path / target)])

    for vectors, target, error, told in (
        (np.ones((4, 8)), "new.npy", UsageError, "8 dims, the teacher has 32"),
        (np.full((4, 32), np.nan), "new.npy", DataError, "NaN or infinity in row 0"),
        (np.ones((4, 32)), "new.parquet", UsageError, "not a place for an index"),
        (np.ones((4, 32)), "out/new.npy", UsageError, "not a place for an index"),
    ):
        with pytest.raises(error, match=told):
            moved(vectors, target)
        assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="a file"):
        moved(np.ones((4, 32)))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    with pytest.raises(ArtifactError, match="already exists"):
        emb.rotate(teacher, documents=[documents], out=tmp_path / "taken")


def test_prompts_that_only_the_registry_knows_go_into_the_folder(
    tmp_path: Path, documents: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bert(tmp_path / "models" / "bge-small-en-v1.5")
    monkeypatch.setenv("EMB_MODELS", str(tmp_path / "models"))
    out = emb.rotate("bge-small-en-v1.5", documents=[documents], out=tmp_path / "rotated").folder
    known = find("bge-small-en-v1.5")
    assert known is not None
    assert known.prompts["query"]
    assert load_model(out).spec.prompt("query") == known.prompts["query"]
