"""Teachers of which there is nothing but vectors: a function, a file; and a teacher that is not opened where all is
cached.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import SENTENCES, tiny_bert

import emb
from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.commands import console
from emb.data.corpus import Columns, Text
from emb.distill import targets as room
from emb.errors import DataError, EmbError, TeacherError, UsageError
from emb.similarity import cosines
from emb.teachers.capture import capture
from emb.teachers.function import FunctionTeacher
from emb.teachers.vector_file import VectorFileTeacher

SHORT: dict[str, Any] = {"max_steps": 3}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Texts put together from the tokenizer's words."""
    rng, words = random.Random(0), " ".join(SENTENCES).split()
    return list(dict.fromkeys(" ".join(rng.choices(words, k=rng.randint(3, 12))) for _ in range(200)))


@pytest.fixture
def start(tmp_path: Path) -> str:
    """What a student starts from."""
    return str(tiny_bert(tmp_path / "start"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def vectors_of(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Something that depends on a text alone: counts of letters, of length 1."""
    counts = np.asarray(
        [[1 + text.lower().count(letter) for letter in "abcdefghijklmnop"] for text in texts], np.float32
    )
    return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True))


def _file(folder: Path, texts: Sequence[str]) -> str:
    path = folder / "texts.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return str(path)


def test_a_function_is_a_teacher(texts: list[str], start: str, tmp_path: Path) -> None:
    found = emb.distill(vectors_of, student=start, data=[_file(tmp_path, texts)], out=tmp_path / "run", **SHORT)
    assert found.scores[-1].dim == 16
    manifest = Manifest.load(found.student)
    assert manifest.normalize
    assert manifest.lineage.teacher.name == "vectors_of"
    assert manifest.lineage.teacher.path == ""
    assert cosines(emb.load(found.student).encode(texts), vectors_of(texts)).mean() > 0.9
    with pytest.raises(UsageError, match="is a function"):
        emb.distill(resume=True, out=_unfinished(tmp_path / "run"))
    before = (found.student / "model.safetensors").read_bytes()
    emb.distill(vectors_of, resume=True, out=tmp_path / "run")
    assert (found.student / "model.safetensors").read_bytes() == before


def _unfinished(run: Path) -> Path:
    from emb.artifact.runs import write_status

    write_status(run, "running", teacher="vectors_of")
    return run


def test_a_function_is_asked_once_for_each_text_and_kind(cache: Path) -> None:
    asked: list[tuple[str, str]] = []

    def by_kind(texts: list[str], kind: str) -> np.ndarray[Any, Any]:
        asked.extend((text, kind) for text in texts)
        return vectors_of(texts) * (2 if kind == "query" else 1)

    items = [Text("the cat", "query"), Text("the cat", "document"), Text("a dog", "document")]
    found = capture(FunctionTeacher(by_kind), items).take([0, 1])
    assert np.allclose(found[0], 2 * found[1], atol=1e-3)
    before = len(asked)
    again = capture(FunctionTeacher(by_kind), [*items, Text("more")])
    assert [text for text, _ in asked[before:] if text in ("the cat", "a dog", "more")] == ["more"]
    assert np.allclose(again.take([0, 1]), found)


def test_another_function_of_the_same_name_is_another_teacher() -> None:
    def named(factor: float) -> Any:
        def one(texts: list[str]) -> np.ndarray[Any, Any]:
            return vectors_of(texts)[:, :: 1 if factor > 0 else -1]

        return one

    assert (
        FunctionTeacher(named(1)).identity == FunctionTeacher(named(2)).identity != FunctionTeacher(named(-1)).identity
    )
    own = named(1)
    own.identity = "api-model-3, 2026-01"
    assert "api-model-3" in FunctionTeacher(own).identity.weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda texts: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda texts: np.zeros((len(texts) + 1, 4)), r"gives \(5, 4\) for 4 texts"),
        (lambda texts: ["a"] * len(texts), "raised ValueError"),
        (lambda texts: np.zeros((len(texts), 4 if len(texts) == 4 else 5)), "of 5 dims, and gave 4 before"),
        (lambda texts: np.full((len(texts), 4), np.nan if len(texts) != 4 else 1.0), "NaN or infinity"),
    ],
)
def test_a_function_that_is_none_of_vectors(given: Any, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        capture(FunctionTeacher(given, "it"), [Text("one"), Text("two")])


@pytest.mark.parametrize("source", [None, "teacher", "fresh:2x32"])
def test_no_student_is_cut_from_vectors(source: str | None, texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing but vectors") as refused:
        emb.distill(vectors_of, student=source, data=[_file(tmp_path, texts)], out=tmp_path / "run")
    assert "--student" in refused.value.hint


def test_vectors_in_the_order_of_a_file_of_texts(texts: list[str], start: str, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors_of(texts))
    words = [
        "distill",
        "--teacher-vectors",
        str(tmp_path / "vectors.npy"),
        "--data",
        _file(tmp_path, texts),
        "--student",
        start,
        "--max-steps",
        "3",
    ]
    assert console.run(cli, [*words, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert cosines(emb.load(tmp_path / "run" / "student").encode(texts), vectors_of(texts)).mean() > 0.9
    assert emb.distill(resume=True, out=tmp_path / "run").scores


def test_vectors_beside_their_texts(texts: list[str], start: str, tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": texts,
            "kind": ["query" if index % 3 == 0 else "document" for index in range(len(texts))],
            "e": list(vectors_of(texts)),
        }
    )
    pq.write_table(table, tmp_path / "both.parquet")
    found = emb.distill(
        teacher_vectors=tmp_path / "both.parquet",
        student=start,
        out=tmp_path / "run",
        overrides={"capture.column": "e"},
        **SHORT,
    )
    assert cosines(emb.load(found.student).encode(texts), vectors_of(texts)).mean() > 0.9
    assert Manifest.load(found.student).lineage.recipe["data"]["sources"] == [str(tmp_path / "both.parquet")]


def test_files_that_do_not_belong_together(texts: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors_of(texts[1:]))
    with pytest.raises(DataError, match=r"199 vectors"):
        VectorFileTeacher(tmp_path / "vectors.npy", [_file(tmp_path, texts)], Columns())
    with pytest.raises(UsageError, match="whose vectors"):
        VectorFileTeacher(tmp_path / "vectors.npy", [], Columns())
    teacher = VectorFileTeacher(tmp_path / "vectors.npy", [_file(tmp_path, texts[1:])], Columns())
    with pytest.raises(TeacherError, match="no vector of the document 'other'"):
        teacher.embed(["other"], "document")
    assert np.array_equal(teacher.embed(texts[3:5], "document"), vectors_of(texts[3:5]))


def test_two_teachers_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(EmbError, match="there is a teacher too"):
        emb.distill("all-MiniLM-L6-v2", teacher_vectors=tmp_path / "a.npy")


def test_where_all_is_cached_no_teacher_is_loaded(
    texts: list[str], start: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = tiny_bert(tmp_path / "teacher", dim=24)
    asked: dict[str, Any] = {"teacher": teacher, "student": start, "data": [_file(tmp_path, texts)], **SHORT}
    first = emb.distill(**asked, out=tmp_path / "first")
    (cache / "teacher" / "another").mkdir()
    (cache / "teacher" / "another" / "teacher.json").write_text("{")  # no matter of this teacher
    loaded: list[Path] = []
    load = room.load_model
    monkeypatch.setattr(room, "load_model", lambda folder, **how: (loaded.append(folder), load(folder, **how))[1])
    again = emb.distill(**asked, out=tmp_path / "again")
    assert not loaded
    untimed = [[replace(each, milliseconds=None) for each in found.scores] for found in (first, again)]
    assert untimed[0] == untimed[1]
    assert Manifest.load(again.student).lineage.teacher == Manifest.load(first.student).lineage.teacher
    for changes in ({"overrides": {"capture.max_length": 8}}, {"data": [_file(tmp_path, [*texts, "one more text"])]}):
        emb.distill(**asked | changes, out=tmp_path / "other", overwrite=True)
        assert loaded.pop() == teacher


def test_an_unknown_term_is_said_before_the_teacher_is_asked(texts: list[str], start: str, tmp_path: Path) -> None:
    def never(texts: list[str]) -> Any:
        raise AssertionError

    with pytest.raises(UsageError, match="term 'l3' is unknown"):
        emb.distill(
            never, student=start, data=[_file(tmp_path, texts)], out=tmp_path / "run", overrides={"training.loss": "l3"}
        )
