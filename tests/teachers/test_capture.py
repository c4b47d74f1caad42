"""Capturing teacher vectors: once per text, whatever is killed, damaged or running beside it."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capturing import COUNT, IDENTITY, captured, count_forwards, encoded, items
from distilling import finish, kill_when, start, wait_for
from tiny import QUERY_PROMPT

from emb.artifact.fingerprints import weights_hash
from emb.data.corpus import Text
from emb.errors import DiskError, TeacherError
from emb.files import cache_root
from emb.model.embedding_model import load_model
from emb.teachers import capture as room
from emb.teachers.cache import TeacherCache, row_key
from emb.teachers.capture import capture
from emb.teachers.folder import FolderTeacher


def _shards(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.npy"))


def _stored(cache: Path) -> int:
    return len(TeacherCache(cache / "teacher" / IDENTITY.fingerprint, 32).index)


@pytest.fixture(scope="module")
def undisturbed(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, Any]]:
    """The cache and the vectors of a capture that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert finish(start(captured, bert_folder, folder / "cache", folder / "result.npy")) == 0
    return folder / "cache", np.load(folder / "result.npy")


def test_vectors_are_the_teachers_own(bert_folder: Path, undisturbed: tuple[Path, np.ndarray[Any, Any]]) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(bert_folder), device="cpu").encode([item.text for item in items()])
    difference = np.abs(expected - undisturbed[1])
    print(f"max {difference.max():.2e}, mean {difference.mean():.2e}")
    assert difference.max() < 1e-3  # stored as halves


def test_query_prompt_reaches_the_teacher(qwen3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    chosen, model = items(9), load_model(qwen3_folder)
    vectors = capture(FolderTeacher(model, IDENTITY), chosen).take(range(9))
    reference = SentenceTransformer(str(qwen3_folder), device="cpu")
    assert model.spec.prompt("query") == QUERY_PROMPT
    expected = np.stack([reference.encode(item.text, prompt_name=item.kind) for item in chosen])
    assert np.abs(expected - vectors).max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_killed_in_the_middle_loses_nothing_stored(
    seed: int, bert_folder: Path, tmp_path: Path, undisturbed: tuple[Path, np.ndarray[Any, Any]]
) -> None:
    cache, result = tmp_path / "cache", tmp_path / "result.npy"
    shards = random.Random(seed).randint(1, 8)
    kill_when(start(captured, bert_folder, cache, result, pause=0.02), lambda: len(_shards(cache)) >= shards)
    stored = _stored(cache)
    assert 0 < stored < COUNT
    result.with_suffix(".journal").unlink()
    assert finish(start(captured, bert_folder, cache, result)) == 0
    assert encoded(result.with_suffix(".journal")) == COUNT - stored
    assert np.array_equal(np.load(result), undisturbed[1])


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_shard_is_computed_again(
    damage: str,
    bert_folder: Path,
    tmp_path: Path,
    undisturbed: tuple[Path, np.ndarray[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = Path(shutil.copytree(undisturbed[0], tmp_path / "cache"))
    path = _shards(cache)[2]
    content = bytearray(path.read_bytes())
    content[-40] ^= 4
    path.write_bytes(bytes(content) if damage == "flipped" else bytes(content[:-7]))
    monkeypatch.setenv("EMB_CACHE", str(cache))
    model = load_model(bert_folder)
    count_forwards(model, tmp_path / "journal")
    vectors = capture(FolderTeacher(model, IDENTITY, 64), items()).take(range(COUNT))
    assert f"{path} is damaged" in capsys.readouterr().err
    assert 0 < encoded(tmp_path / "journal") < 20
    assert np.abs(vectors - undisturbed[1]).max() < 1e-3
    assert capture(FolderTeacher(model, IDENTITY, 64), items()).take([0]).shape == (1, 32)
    assert encoded(tmp_path / "journal") < 20


def test_two_processes_share_the_work(
    bert_folder: Path, tmp_path: Path, undisturbed: tuple[Path, np.ndarray[Any, Any]]
) -> None:
    cache, results = tmp_path / "cache", [tmp_path / f"{name}.npy" for name in "ab"]
    processes = [start(captured, bert_folder, cache, result, pause=0.01) for result in results]
    assert [finish(process) for process in processes] == [0, 0]
    assert sum(encoded(result.with_suffix(".journal")) for result in results) == COUNT
    assert all(np.array_equal(np.load(result), undisturbed[1]) for result in results)


def test_second_process_takes_over_from_a_killed_one(
    bert_folder: Path, tmp_path: Path, undisturbed: tuple[Path, np.ndarray[Any, Any]]
) -> None:
    cache, results = tmp_path / "cache", [tmp_path / f"{name}.npy" for name in "ab"]
    first = start(captured, bert_folder, cache, results[0], pause=0.05)
    wait_for(first, lambda: len(_shards(cache)) >= 1)
    second = start(captured, bert_folder, cache, results[1])
    kill_when(first, lambda: len(_shards(cache)) >= 2)
    assert finish(second) == 0
    assert encoded(results[1].with_suffix(".journal")) < COUNT
    assert np.array_equal(np.load(results[1]), undisturbed[1])


def test_only_new_texts_are_encoded(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    model = load_model(bert_folder)
    count_forwards(model, tmp_path / "journal")
    chosen = items(20)
    first = capture(FolderTeacher(model, IDENTITY), chosen)
    again = capture(FolderTeacher(model, IDENTITY), [*reversed(chosen), *chosen, Text("one more")])
    assert encoded(tmp_path / "journal") == 21
    assert np.array_equal(again.take(range(20)), first.take(range(20))[::-1])


def test_same_text_behind_two_prompts_is_two_vectors(
    qwen3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    model = load_model(qwen3_folder)
    count_forwards(model, tmp_path / "journal")
    both = capture(FolderTeacher(model, IDENTITY), [Text("the cat", "query"), Text("the cat", "document")]).take([0, 1])
    assert np.abs(both[0] - both[1]).max() > 1e-2
    model.spec = dataclasses.replace(model.spec, prompts={})  # without prompts, kinds make no difference
    capture(FolderTeacher(model, IDENTITY), [Text("the cat", "query")])
    assert encoded(tmp_path / "journal") == 2


def test_identity_makes_the_folder() -> None:
    others = [
        dataclasses.replace(IDENTITY, **change)
        for change in ({"weights": "x"}, {"max_length": 65}, {"dtype": "bfloat16"})
    ]
    assert len({each.fingerprint for each in [IDENTITY, *others]}) == 4


def test_weights_hash_sees_every_file_that_loading_may_read(bert_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bert_folder, tmp_path / "copy"))
    seen = {weights_hash(bert_folder)}
    own = ("tokenizer.json", "1_Pooling/config.json", "model.safetensors", "config_sentence_transformers.json")
    others = (
        "merges.txt",
        "vocab.txt",
        "spiece.model",
        "2_Dense/pytorch_model.bin",
        "0_Transformer/tokenizer.json",
        "modeling_own.py",
        "a/b/part.safetensors",
    )
    for name in (*own, *others):
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
        seen.add(weights_hash(copy))
    (copy / "vocab.txt").rename(copy / "vocab.json")
    assert len(seen | {weights_hash(copy)}) == 2 + len(own) + len(others)


def test_weights_hash_does_not_see_what_no_vector_depends_on(bert_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bert_folder, tmp_path / "copy"))
    for name in (
        "README.md",
        "emb.json",
        "parity.json",
        "report.html",
        "onnx/model.onnx",
        "ctranslate2/model.bin",
        ".cache/a.json",
    ):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("{}", encoding="utf-8")
    assert weights_hash(copy) == weights_hash(bert_folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6], ids=["nan", "inf", "beyond half"])
def test_teacher_that_returns_no_numbers(
    value: float, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    monkeypatch.setattr(room, "_FLUSH_TEXTS", 5)
    model = load_model(bert_folder)
    model.spec = dataclasses.replace(model.spec, normalize=False)
    chosen = [*items(20), Text("poison")]  # short, so among the last
    original = FolderTeacher.embed

    def poisoned(self: FolderTeacher, texts: Sequence[str], kind: str) -> Any:
        vectors = original(self, texts, kind)
        vectors[[text == "poison" for text in texts]] = value
        return vectors

    monkeypatch.setattr(FolderTeacher, "embed", poisoned)
    with pytest.raises(TeacherError, match="NaN or infinity for: 'poison'") as caught:
        capture(FolderTeacher(model, IDENTITY, 64), chosen)
    assert "fp32" in caught.value.hint
    index = TeacherCache(tmp_path / "teacher" / IDENTITY.fingerprint, 32).index
    assert row_key("", "poison") not in index
    assert index, "what came before was not kept"


def test_full_disk_keeps_what_was_stored(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    monkeypatch.setattr(room, "_FLUSH_TEXTS", 5)
    model = load_model(bert_folder)
    count_forwards(model, tmp_path / "journal")
    monkeypatch.setattr(Path, "write_bytes", _failing_after(3))
    with pytest.raises(DiskError, match="the disk is full") as caught:
        capture(FolderTeacher(model, IDENTITY, 64), items())
    assert "finished work is kept" in caught.value.hint
    monkeypatch.undo()
    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    stored = _stored(tmp_path)
    assert stored >= 15
    (tmp_path / "journal").unlink()
    capture(FolderTeacher(model, IDENTITY, 64), items())
    assert encoded(tmp_path / "journal") == COUNT - stored


def _failing_after(count: int) -> Any:
    original, written = Path.write_bytes, []

    def write(self: Path, data: Any) -> int:
        written.append(self)
        if len(written) > count:
            raise OSError(28, "No space left on device", str(self))
        return original(self, data)

    return write


def test_cache_folder_says_whose_it_is(undisturbed: tuple[Path, np.ndarray[Any, Any]]) -> None:
    facts = json.loads((undisturbed[0] / "teacher" / IDENTITY.fingerprint / "teacher.json").read_text(encoding="utf-8"))
    assert facts == {
        "weights": "weights",
        "max_length": 64,
        "dtype": "float32",
        "dim": 32,
        "prompts": {"query": "", "document": ""},
    }


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("EMB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "emb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "emb"
