"""An index takes a teacher's vectors from the cache where they are that very teacher's, and only there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emb
from emb.artifact.fingerprints import weights_hash
from emb.data.corpus import Text
from emb.runtime.encoder import Encoder
from emb.search.known_vectors import KnownVectors, with_known_vectors
from emb.search.sides import document_encoder
from emb.similarity import NotFiniteError, Vectors, unit
from emb.teachers.capture import capture
from emb.teachers.protocol import TeacherIdentity

TEXTS = ["water for all", "a house of the people", "how many know the number?", "time"]


@dataclasses.dataclass
class Noted:
    """A teacher whose vectors are all `value`: what comes from the cache is known by it."""

    identity: TeacherIdentity
    dim: int
    value: float
    prefix: str = ""
    normalized = True

    def prompt(self, kind: str) -> str:
        """The same for queries and documents."""
        return self.prefix

    def embed(self, texts: Any, kind: str) -> Vectors:
        """`(texts, dim)`, all alike."""
        return np.full((len(texts), self.dim), self.value, np.float32)


@pytest.fixture
def model(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    return emb.load(bert_folder)


def _capture(model: Encoder, folder: Path, texts: list[str], value: float = 1.0, **changed: Any) -> None:
    """Leave vectors of `texts` in the cache, as distilling does; `changed` are other facts of the teacher."""
    facts: dict[str, Any] = {"weights": weights_hash(folder), "max_length": model.max_length, "dtype": "float32"}
    prefix, normalize = changed.pop("prefix", ""), changed.pop("normalize", model.normalize)
    teacher = Noted(TeacherIdentity(**{**facts, **changed}), model.dim, value, prefix)
    capture(teacher, [Text(text) for text in texts], {"spec": {"normalize": normalize}})


def test_vectors_of_the_cache_stand_in_their_places(model: Encoder, bert_folder: Path) -> None:
    _capture(model, bert_folder, [TEXTS[2], TEXTS[0]])
    known = document_encoder(bert_folder, cached=True)
    found, own = known.encode(TEXTS), model.encode(TEXTS)
    alike = unit(np.ones((1, model.dim), np.float32))[0] if model.normalize else np.ones(model.dim)
    np.testing.assert_allclose(found[[0, 2]], [alike, alike], atol=1e-6)
    np.testing.assert_allclose(found[[1, 3]], own[[1, 3]], atol=1e-6)
    assert isinstance(known, KnownVectors)
    assert known.taken == 2
    assert type(document_encoder(bert_folder)) is type(model)  # unless asked for, the model encodes


@pytest.mark.parametrize(
    "changed",
    [{"weights": "another"}, {"max_length": 10_000}, {"prefix": "passage: "}, {"normalize": None}, {"dtype": "int8"}],
    ids=lambda changed: next(iter(changed)),
)
def test_vectors_of_another_teacher_are_left(model: Encoder, bert_folder: Path, changed: dict[str, Any]) -> None:
    _capture(model, bert_folder, TEXTS, **changed)
    assert with_known_vectors(model, bert_folder) is model


def test_the_most_exact_vectors_are_taken(model: Encoder, bert_folder: Path) -> None:
    for value, dtype in ((-1.0, "bfloat16"), (1.0, "float32"), (-1.0, "float16")):
        _capture(model, bert_folder, TEXTS, value, dtype=dtype)
    found = with_known_vectors(model, bert_folder)
    assert isinstance(found, KnownVectors)
    assert found.dtype == "float32"
    assert (found.encode(TEXTS) > 0).all()


def test_texts_that_were_read_to_their_end_are_taken_though_others_were_cut(model: Encoder, bert_folder: Path) -> None:
    _capture(model, bert_folder, TEXTS, max_length=6)
    known = with_known_vectors(model, bert_folder)
    assert isinstance(known, KnownVectors)
    lengths = [len(ids) for ids in model.tokenizer.encode(TEXTS)]
    assert min(lengths) <= 6 < max(lengths)
    found, own = known.encode(TEXTS, kind="query"), model.encode(TEXTS, kind="query")
    whole = [length <= 6 for length in lengths]
    np.testing.assert_array_equal(np.isclose(found, own, atol=1e-6).all(1), np.logical_not(whole))
    assert known.taken == sum(whole)


def test_texts_that_were_read_as_far_go_before_those_read_less_far(model: Encoder, bert_folder: Path) -> None:
    for value, tokens in ((-1.0, model.max_length - 1), (1.0, model.max_length), (-1.0, model.max_length - 2)):
        _capture(model, bert_folder, TEXTS, value, max_length=tokens)
    assert (with_known_vectors(model, bert_folder).encode(TEXTS) > 0).all()


def test_one_text_and_a_cut_go_through_the_model(model: Encoder, bert_folder: Path) -> None:
    _capture(model, bert_folder, TEXTS)
    known = with_known_vectors(model, bert_folder)
    np.testing.assert_allclose(known.encode(TEXTS[0]), model.encode(TEXTS[0]), atol=1e-6)
    np.testing.assert_allclose(known.encode(TEXTS, truncate_dim=4), model.encode(TEXTS, truncate_dim=4), atol=1e-6)


def test_texts_that_were_cut_are_counted_all_the_same(model: Encoder, bert_folder: Path) -> None:
    texts = ["water " * 2 * model.max_length, TEXTS[0]]
    _capture(model, bert_folder, texts)
    counts: dict[str, Any] = {}
    for name, each in (("known", with_known_vectors(model, bert_folder)), ("own", model)):
        each.encode(texts, count=lambda cut, name=name: counts.__setitem__(name, cut))  # type: ignore[misc]
    assert counts["known"] == counts["own"]
    assert counts["known"].cut == 1


def test_a_vector_that_is_not_finite_names_its_text(
    model: Encoder, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _capture(model, bert_folder, TEXTS[:2])
    known = with_known_vectors(model, bert_folder)
    monkeypatch.setattr(model, "run", lambda ids, mask: np.full((len(ids), model.dim), np.nan, np.float32))
    with pytest.raises(NotFiniteError) as caught:
        known.encode(TEXTS)
    assert (caught.value.row, caught.value.text) == (2, TEXTS[2])


def test_an_index_takes_them_unless_told_not_to(
    model: Encoder, bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text("".join(json.dumps({"id": text, "text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    _capture(model, bert_folder, TEXTS)
    scores = {}
    for cached in (True, False):
        emb.index(source, tmp_path / str(cached), bert_folder, cached=cached)
        hits = emb.open_index(tmp_path / str(cached), bert_folder).search(TEXTS[0])
        scores[cached] = [hit.score for hit in hits]
    assert np.ptp(scores[True]) < 1e-6 < np.ptp(scores[False])
    assert capsys.readouterr().err.count("4 vectors come from the cache, where they were computed in float32") == 1
