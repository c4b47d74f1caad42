"""How documents are cut, learned: what a cut query finds is what the whole one finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexing import DIM, Hashed, indexed, record, vector_of, write

import emb
from emb.errors import ArtifactError, UsageError
from emb.quantize.vectors.base import Codec
from emb.search.index import asked, build, fitted, learned_order
from emb.search.index.asked import asked_of
from emb.search.index.build import begin
from emb.search.index.catalogue import Catalogue
from emb.search.index.description import Layout
from emb.search.index.documents import Columns
from emb.search.index.learned_cut import LearnedCut, learn_cut
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with
from emb.search.index.space import Space
from emb.similarity import Vectors, highest, unit

CUT = 8
SPACE = Space("dot", True, CUT)
LAYOUT: dict[str, Any] = {"dim": CUT, "learn_cut": True}


def _related(random: np.random.Generator, count: int) -> Vectors:
    """Queries whose first dims tell all the others: `(count, DIM)`."""
    first = random.standard_normal((count, CUT))
    following = np.random.default_rng(5).standard_normal((CUT, DIM - CUT))
    return unit(np.concatenate([first, first @ following], 1))


class Related(Hashed):
    """Reads queries so, and documents as their texts' hashes say."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[str] = []

    def encode(self, texts: Any, *, kind: str = "document", **options: Any) -> Any:
        """See `Encoder`."""
        if kind == "document":
            return super().encode(texts, **options)
        self.queries += texts
        seeds = [int(1e6 * abs(vector_of(text)[0])) for text in texts]
        return np.concatenate([_related(np.random.default_rng(seed), 1) for seed in seeds])


def _documents(count: int, first: int = 0) -> dict[str, str]:
    """Each of five sentences."""
    return {
        f"d{number:04d}": " ".join(f"w{number} of the {place}th kind here." for place in range(5))
        for number in range(first, first + count)
    }


def _vectors(documents: dict[str, str]) -> Vectors:
    return unit(np.stack([vector_of(text) for text in documents.values()]))


def _found(index: Path, queries: Vectors, documents: dict[str, str]) -> float:
    """The share of the ten documents of whole queries that an index finds."""
    rows = highest(queries @ _vectors(documents).T, 10)
    names = list(documents)
    with Index(index) as opened:
        found = [{hit.id for hit in opened.search_vector(query, 10)} for query in queries]
    return float(np.mean([len({names[row] for row in ten} & hits) / 10 for ten, hits in zip(rows, found, strict=True)]))


def test_what_queries_say_of_the_dims_that_are_cut_off_is_learned() -> None:
    random = np.random.default_rng(0)
    documents = random.standard_normal((400, DIM)).astype(np.float32)
    found = learn_cut(_related(random, 1500), documents, SPACE)
    assert found.matrix.shape == (CUT, DIM)
    assert found.learned > found.alike + 0.25


def test_both_shares_are_those_of_held_out_queries() -> None:
    random = np.random.default_rng(0)
    queries, documents = (unit(random.standard_normal((count, DIM)).astype(np.float32)) for count in (60, 400))
    found = learn_cut(queries, documents, SPACE)
    held_out = queries[np.random.default_rng(0).permutation(60)[:6]]
    ten = highest(held_out @ documents.T, 10)
    for share, cut in ((found.alike, documents[:, :CUT]), (found.learned, documents @ found.matrix.T)):
        again = highest(SPACE.apply(held_out) @ unit(cut).T, 10)
        assert share == pytest.approx((ten[:, :, None] == again[:, None, :]).any(2).mean())
    assert found.alike != found.learned


def test_held_out_queries_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they are: others, in their places, leave the matrix as it is."""
    random = np.random.default_rng(0)
    queries, documents = (unit(random.standard_normal((count, DIM)).astype(np.float32)) for count in (60, 400))
    others = queries.copy()
    others[np.random.default_rng(0).permutation(60)[:6]] *= -1
    monkeypatch.setattr(learned_order, "_STEPS", 5)
    first, second = (learn_cut(each, documents, SPACE).matrix for each in (queries, others))
    np.testing.assert_array_equal(first, second)
    others[:] *= -1
    assert (learn_cut(others, documents, SPACE).matrix != first).any()


def test_a_rotated_start_is_what_queries_are_cut_by() -> None:
    random = np.random.default_rng(2)
    turn = np.linalg.qr(random.standard_normal((DIM, DIM)))[0].astype(np.float32)
    documents = random.standard_normal((400, DIM)).astype(np.float32)
    queries = _related(random, 1500)
    plain, turned = (
        learn_cut(queries, documents, SPACE),
        learn_cut(queries @ turn, documents @ turn, SPACE.turned(turn)),
    )
    assert turned.alike == pytest.approx(plain.alike, abs=0.02)
    assert turned.learned == pytest.approx(plain.learned, abs=0.05)


@pytest.mark.parametrize("rotate", [False, True])
def test_an_index_finds_more_by_queries_that_are_cut_as_ever(rotate: bool, tmp_path: Path) -> None:
    documents, queries = _documents(200), _related(np.random.default_rng(9), 50)
    indexed(tmp_path / "plain", documents, Related(), dim=CUT, rotate=rotate)
    encoder = Related()
    indexed(tmp_path / "learned", documents, encoder, rotate=rotate, **LAYOUT)
    assert len(encoder.queries) > 500
    assert _found(tmp_path / "learned", queries, documents) > _found(tmp_path / "plain", queries, documents) + 0.1
    with Index(tmp_path / "plain") as plain, Index(tmp_path / "learned") as learned:
        for query in queries[:3]:
            np.testing.assert_allclose(
                plain.snapshot().space.apply(query[None]), learned.snapshot().space.apply(query[None])
            )


def test_documents_that_come_later_go_the_same_way(tmp_path: Path) -> None:
    documents, later = _documents(200), _documents(40, 200)
    indexed(tmp_path / "i", documents, Related(), **LAYOUT)
    encoder = Related()
    indexed(tmp_path / "i", later, encoder, **LAYOUT)
    assert not encoder.queries  # it is learned once
    with Index(tmp_path / "i") as index:
        [cut] = [index.snapshot().fitted.cut]  # type: ignore[union-attr]
        assert cut is not None
        expected = unit(_vectors(later) @ cut.T)
        [segment] = [each for each in index.snapshot().segments if each.row.rows == 40]
        np.testing.assert_allclose(segment.stored.codec.decode(segment.stored.codes), expected, atol=1e-5)


def test_what_is_not_stored_yet_is_searched_behind_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents, later = _documents(200), _documents(40, 200)
    indexed(tmp_path / "i", documents, Related(), **LAYOUT)
    monkeypatch.setattr(build.Storing, "settle", lambda self: None)
    indexed(tmp_path / "i", later, Related(), **LAYOUT)
    with Index(tmp_path / "i") as index:
        [raw] = [each for each in index.snapshot().segments if each.row.raw]
        cut = index.snapshot().fitted.cut  # type: ignore[union-attr]
        assert cut is not None
        np.testing.assert_allclose(raw.stored.codes, unit(_vectors(later) @ cut.T), atol=1e-5)


@pytest.mark.parametrize(("learned", "kept"), [(0.6, True), (0.5, False), (0.4, False)])
def test_it_is_taken_where_held_out_queries_find_more(
    learned: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = np.eye(CUT, DIM, 3, dtype=np.float32)
    monkeypatch.setattr(fitted, "learn_cut", lambda *_: LearnedCut(matrix, 0.5, learned))
    documents = _documents(100)
    indexed(tmp_path / "i", documents, Related(), **LAYOUT)
    said = capsys.readouterr().err
    assert f"held-out ones find {learned:.1%} of their ten documents again, 50.0% with both cut alike" in said.replace(
        "\n", " "
    )
    assert ("the cut is not learned" in said) is not kept
    with Index(tmp_path / "i") as index:
        [segment] = index.snapshot().segments
        first = _vectors(documents)[:, 3 : 3 + CUT] if kept else _vectors(documents)[:, :CUT]
        np.testing.assert_allclose(segment.stored.codes, unit(first), atol=1e-5)


def test_too_few_queries_learn_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    indexed(tmp_path / "i", _documents(10), Related(), **LAYOUT)
    assert "it takes 300" in capsys.readouterr().err
    with Index(tmp_path / "i") as index:
        assert index.snapshot().fitted.cut is None  # type: ignore[union-attr]


def test_of_many_queries_some_from_all_over_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = _documents(200)
    indexed(tmp_path / "i", documents)
    monkeypatch.setattr(asked, "_MOST", 50)
    monkeypatch.setattr(asked, "_DOCUMENTS", 100)
    encoder = Related()
    catalogue = Catalogue(tmp_path / "i", write=False)
    with catalogue.reading() as sql:
        found = asked_of(sql, encoder)
    catalogue.close()
    assert found is not None
    assert found.shape == (50, DIM)
    numbers = sorted(int(text.split()[0][1:]) for text in encoder.queries if text.startswith("w"))
    assert numbers[0] < 10
    assert numbers[-1] > 190
    assert not any(number % 2 for number in numbers)  # of every second document


def test_removing_documents_waits_for_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = _documents(200)
    with monkeypatch.context() as broken:
        broken.setattr(build.Storing, "settle", lambda self: None)
        indexed(tmp_path / "i", documents, Related(), **LAYOUT)
    indexed(tmp_path / "i", {}, delete=["d0000"])
    with Index(tmp_path / "i") as index:
        assert len(index) == 199
        assert index.snapshot().fitted is None
    indexed(tmp_path / "i", _documents(1, 200), Related(), **LAYOUT)
    with Index(tmp_path / "i") as index:
        assert index.snapshot().fitted.cut is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("codec", [{"codec": "binary", "rescore": "lvq8"}, {"codec": "int8"}])
def test_codecs_are_fitted_to_what_is_stored(
    codec: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, queries = _documents(200), _related(np.random.default_rng(9), 50)
    indexed(tmp_path / "floats", documents, Related(), **LAYOUT)
    seen: list[Vectors] = []
    fit = fitted._fitted

    def noted(kind: str, vectors: Vectors) -> Codec:
        seen.append(vectors)
        return fit(kind, vectors)

    monkeypatch.setattr(fitted, "_fitted", noted)
    indexed(tmp_path / "coded", documents, Related(), **LAYOUT, **codec)
    with Index(tmp_path / "floats") as index:
        [segment] = index.snapshot().segments
        for vectors in seen:
            np.testing.assert_allclose(vectors, segment.stored.codes, atol=1e-6)
    assert len(seen) == len(codec)
    assert _found(tmp_path / "coded", queries, documents) > _found(tmp_path / "floats", queries, documents) - 0.05


def test_a_matrix_that_was_changed_is_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "i", _documents(200), Related(), **LAYOUT)
    [path] = (tmp_path / "i").glob("fitted-*/cut.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with Index(tmp_path / "i") as index, pytest.raises(ArtifactError, match=r"cut\.npy: missing, or changed"):
        index.snapshot()


def test_an_index_that_says_nothing_of_it_is_read(tmp_path: Path) -> None:
    indexed(tmp_path / "i", _documents(20), dim=CUT)
    catalogue = Catalogue(tmp_path / "i", write=True)
    known = json.loads(str(catalogue.setting("fitted")))
    assert known.pop("cut") is None
    with catalogue.writing():
        catalogue.put("fitted", json.dumps(known))
    catalogue.close()
    with Index(tmp_path / "i") as index:
        assert index.snapshot().fitted.cut is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "layout", "said"),
    [
        (("cosine", True), Layout(learn_cut=True), "learn_cut: vectors are not cut"),
        (("cosine", True), Layout(learn_cut=True, dim=DIM), "learn_cut: vectors are not cut"),
        (("dot", False), Layout(learn_cut=True, dim=CUT), "this encoder's dot similarity needs lengths"),
    ],
)
def test_where_nothing_can_be_learned_it_is_refused(
    kind: tuple[str, bool], layout: Layout, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        begin(tmp_path / "i", record(Hashed(*kind)), layout)


def test_it_is_chosen_once(tmp_path: Path) -> None:
    indexed(tmp_path / "i", _documents(20), dim=CUT)
    source = write(tmp_path / "more.jsonl", _documents(1, 20))
    with pytest.raises(UsageError, match="learn-cut True: the index was begun with False"):
        index_with(
            tmp_path / "i", Choices([str(source)], Columns(), (), {"learn_cut": True}), Hashed(), record(Hashed())
        )


def test_the_call_says_it(bert_folder: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "docs.jsonl", _documents(100))
    emb.index(source, tmp_path / "i", bert_folder, dim=CUT, learn_cut=True)
    with Index(tmp_path / "i") as index:
        assert index.description.layout.learn_cut
