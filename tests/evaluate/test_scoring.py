"""What is encoded as what, kept under which name, and tried at which dims: on a subject that is a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emb.artifact.manifest import Variant
from emb.data.evaluation_sets import PairTask, RetrievalTask
from emb.errors import UsageError
from emb.evaluate import storage as storing
from emb.evaluate import subjects
from emb.evaluate.encoding import encoded
from emb.evaluate.scores import Output
from emb.evaluate.scoring import _dims, _scores, encode_sides
from emb.evaluate.storage import Storage, open_storages
from emb.evaluate.subjects import OnnxSubject, parts_of
from emb.quantize.vectors.scalar import Float32Codec, Int8Codec
from emb.similarity import NotFiniteError, Vectors, unit

SEARCH = RetrievalTask("set", {"q": "a", "r": "b"}, {"d": "a", "e": "b"}, {"q": {"d": 1}, "r": {"e": 1}})
PAIRS = PairTask("pairs", ["a", "b"], ["b", "a"], [1.0, 2.0])


@dataclass
class Noted:
    """A subject of one output; `asked` are the kinds and numbers of texts that it encoded."""

    name: str = "m"
    hashes: Sequence[str] = ("h",)
    said: str = "torch [2] fp32"
    dim: int = 8
    similarity: str = "cosine"
    value: float = 0.0
    asked: list[tuple[str, int]] = field(default_factory=list)
    points: Sequence[Output] = (Output(2),)

    def __repr__(self) -> str:
        return self.said

    def fingerprint(self, point: Output) -> str:
        return "h"

    def vectors(self, texts: Sequence[str], kind: str) -> dict[Output, Vectors]:
        self.asked.append((kind, len(texts)))
        return {Output(2): np.full((len(texts), self.dim), self.value, np.float32)}


def test_queries_are_encoded_as_such_and_pairs_as_documents() -> None:
    subject: Any = Noted()
    encode_sides(subject, SEARCH, None)
    encode_sides(subject, PAIRS, None)
    encode_sides(subject, SEARCH, None, documents=False)
    assert subject.asked == [("query", 2), ("document", 2), ("document", 2), ("document", 2), ("query", 2)]


@pytest.mark.parametrize(
    ("changed", "texts", "kind"),
    [
        ({"hashes": ["other weights"]}, ["a", "b"], "query"),
        ({"said": "onnx ['model_int8.onnx']"}, ["a", "b"], "query"),
        ({}, ["a", "c"], "query"),
        ({}, ["b", "a"], "query"),
        ({}, ["a", "b"], "document"),
    ],
    ids=["weights", "what runs it", "texts", "order", "kind"],
)
def test_vectors_are_kept_under_all_that_they_depend_on(
    changed: dict[str, Any], texts: list[str], kind: str, tmp_path: Path
) -> None:
    first, same, other = Noted(), Noted(), replace(Noted(), **changed, asked=[])
    for subject, asked in ((first, (["a", "b"], "query")), (same, (["a", "b"], "query")), (other, (texts, kind))):
        encoded(subject, *asked, tmp_path)  # type: ignore[arg-type]
    assert (len(first.asked), len(same.asked), len(other.asked)) == (1, 0, 1)


def test_vectors_from_a_cache_are_looked_at_too(tmp_path: Path) -> None:
    encoded(Noted(), ["a"], "query", tmp_path)  # type: ignore[arg-type]
    [path] = tmp_path.iterdir()
    with np.load(path) as stored:
        np.savez(path, **{name: np.full_like(stored[name], np.nan) for name in stored.files})  # type: ignore[arg-type]
    with pytest.raises(NotFiniteError):
        encoded(Noted(), ["a"], "query", tmp_path)  # type: ignore[arg-type]


def test_dims_are_those_that_a_model_has_the_widest_first() -> None:
    assert _dims(100, ()) == [100, 64]
    assert _dims(64, ()) == [64]
    assert _dims(64, (32, 128, 64)) == [64, 32]


def test_the_teachers_documents_are_searched_as_far_as_both_are_wide() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(2, 8))).astype(np.float32)
    sides: Any = ({Output(2): vectors}, {Output(2): vectors})
    found = list(_scores(SEARCH, Noted(), sides, [8, 4], vectors[:, :4], []))  # type: ignore[arg-type]
    assert [(score.dim, score.side) for score in found] == [(8, "symmetric"), (4, "symmetric"), (4, "asymmetric")]


@pytest.mark.parametrize("task", [SEARCH, PAIRS])
@pytest.mark.parametrize("stored_as", ["float32", "int8"])
def test_codes_are_tried_on_documents_that_are_searched_in_floats(task: Any, stored_as: str) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(2, 8))).astype(np.float32)
    sides: Any = ({Output(2, "fp32", stored_as): vectors}, {Output(2, "fp32", stored_as): vectors})
    storage = Storage("codec", Float32Codec.fit(vectors))
    found = [each.storage for each in _scores(task, Noted(), sides, [8], None, [storage])]  # type: ignore[arg-type]
    assert found == ([None, "codec"] if task is SEARCH and stored_as == "float32" else [None])


def test_what_candidates_are_put_in_order_by(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}
    monkeypatch.setattr(storing, "score_coded", lambda *_, **how: said.update(how) or 1.0)
    vectors = unit(np.random.default_rng(0).normal(size=(5, 8))).astype(np.float32)
    storage = Storage("codec", Float32Codec.fit(vectors), "int8", 7)
    assert storage.score(SEARCH, vectors[:2], vectors) == 1.0
    assert (said["depth"], type(said["rescore"].codec)) == (7, Int8Codec)
    assert str(storage) == "codec + int8 of 7"
    assert replace(storage, rescore=None).score(SEARCH, vectors[:2], vectors) == 1.0
    assert said["rescore"] is None
    with pytest.raises(UsageError, match="no candidates without codes"):
        open_storages([], "int8", 7)
    with pytest.raises(UsageError, match="two codecs have the same name: a, a"):
        open_storages(["x/a", "y/a"], None, 7)


def test_a_runs_static_encoder_answers_for_no_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    static = Path("run/static")
    monkeypatch.setattr(subjects, "finished_static", lambda path: static)
    assert list(parts_of("run", [])) == [(static, []), ("run", [])]
    assert list(parts_of("run", [0])) == [(static, [])]
    assert list(parts_of("run", [4])) == [("run", [4])]
    assert list(parts_of("run", [0, 4])) == [(static, []), ("run", [4])]
    monkeypatch.setattr(subjects, "finished_static", lambda path: None)
    assert list(parts_of("run", [0])) == [("run", [0])]


def test_each_files_figures_go_by_its_own_hash() -> None:
    variants = [Variant("onnx/model.onnx"), Variant("onnx/model_int8.onnx", "int8")]
    manifest: Any = SimpleNamespace(layers=2)
    subject = OnnxSubject("m", Path(), manifest, [(each, None) for each in variants], True, None)  # type: ignore[misc]
    subject.__dict__["hashes"] = ["a", "b"]
    assert [subject.fingerprint(point) for point in subject.points] == ["a", "b"]
