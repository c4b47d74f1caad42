"""Fewer bytes than floats find what all floats would have found, or say that they do not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from indexing import indexed, vector_of

from emb.search.index.bounded import Bounded, Floats
from emb.search.index.loaded import Segment
from emb.search.index.ranking import Aim, best_documents
from emb.search.index.reader import Index
from emb.search.index.snapshot import Snapshot
from emb.similarity import Vectors, dots, unit


def _vectors(kind: str, count: int = 400, dim: int = 70) -> Vectors:
    random = np.random.default_rng(0)
    rows = random.standard_normal((count, dim)).astype(np.float32)
    if kind == "falling":  # as behind a rotation to principal directions
        rows *= np.geomspace(1, 0.01, dim).astype(np.float32)
    if kind == "near":  # nearer to one another than the steps of a byte
        rows = rows[:1] + 1e-4 * rows
    if kind == "sparse":
        rows[:, 3:] = 0
    if kind == "zero":
        rows[:] = 0
    return unit(rows)


KINDS = ("flat", "falling", "near", "sparse", "zero")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 15, 16, 17, 70])
def test_no_row_that_is_left_out_is_better_than_is_said(kind: str, dim: int) -> None:
    vectors = unit(_vectors(kind)[:, :dim])
    for query in (vectors[7], _vectors("flat", 3, dim)[2], -vectors[0]):
        for allowed in (np.ones(400, bool), np.arange(400) % 3 == 0):
            for candidates in (Bounded(vectors), Floats(vectors)):
                for depth in (1, 20, 133, 134, 400):
                    found = candidates.find(query, depth, allowed)
                    assert len(set(found.rows.tolist())) == len(found.rows) == min(depth, allowed.sum())
                    assert allowed[found.rows].all()
                    left = np.setdiff1d(np.flatnonzero(allowed), found.rows)
                    assert found.least is not None
                    assert dots(query[None], vectors[left]).max(initial=-np.inf) <= found.least + 1e-6
                    assert (found.least == -np.inf) == (len(left) == 0)


def test_the_length_of_the_other_dims_is_never_said_to_be_less() -> None:
    vectors = np.full((400, 16), 0.25, np.float32)  # bytes lose nothing of these
    vectors[:, 15] = np.random.default_rng(0).uniform(0.01, 0.09, 400)
    candidates = Bounded(vectors)
    assert (candidates.rest.tolist(), candidates.lost) == ([15], 0)
    query = vectors[int(vectors[:, 15].argmax())]
    for depth in range(1, 60):
        found = candidates.find(query, depth, np.ones(400, bool))
        left = np.setdiff1d(np.arange(400), found.rows)
        assert found.least is not None
        assert dots(query[None], vectors[left]).max() <= found.least


def test_bytes_of_few_dims_are_enough_where_few_hold_nearly_all() -> None:
    flat, falling = Bounded(_vectors("flat")), Bounded(_vectors("falling"))
    assert flat.size == 400 * 80  # the others' length beside 70 dims, in steps of 16
    assert falling.size == 400 * 48
    least = falling.find(_vectors("falling")[5], 40, np.ones(400, bool)).least
    assert least is not None
    assert least < 0.7  # the 40 are far from the first, which has 1: they are the nearest by something


def test_nothing_is_found_where_nothing_is_allowed() -> None:
    found = Bounded(_vectors("flat")).find(_vectors("flat")[0], 5, np.zeros(400, bool))
    assert (len(found.rows), found.least) == (0, -np.inf)


def _indexed(folder: Path, kind: str) -> tuple[list[str], Vectors]:
    """An index of made vectors under the names of texts, and both."""
    documents = {f"d{number:03d}": f"text {number}" for number in range(400)}
    indexed(folder, documents)
    return list(documents), _vectors(kind, dim=32)


def _replaced(snapshot: Snapshot, vectors: Vectors) -> Segment:
    """The snapshot's segment with other vectors in it."""
    [segment] = snapshot.segments
    stored = type(segment.stored)(Bounded(vectors), segment.stored.codec, vectors)
    return Segment(segment.row, segment.members, stored, segment.space)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 10, 100, 400])
def test_the_best_are_those_of_all_floats(kind: str, k: int, tmp_path: Path) -> None:
    names, vectors = _indexed(tmp_path / "i", kind)
    with Index(tmp_path / "i") as index, index.state() as snapshot:
        segment = _replaced(snapshot, vectors)
        ids = dict(index.connection.execute("SELECT key, id FROM documents"))
        rows = {ids[key]: row for row, key in enumerate(segment.members.documents.tolist())}
        exact = np.asarray([rows[name] for name in names])
        for query in (vectors[7], unit(vector_of("w1")[None])[0]):
            aims = [Aim(segment, query, segment.members.live)]
            found = best_documents(aims, k, lambda keys: {key: ids[key] for key in keys})
            scores = dots(query[None], vectors)[0][exact]
            order = np.lexsort((names, -scores))[:k]
            assert [ids[each.document] for each in found] == [names[place] for place in order]
            np.testing.assert_array_max_ulp(np.asarray([each.score for each in found], np.float32), scores[order], 1)


def test_floats_are_looked_at_only_where_bytes_leave_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    find = Floats.find

    def counted(self: Floats, query: Vectors, depth: int, allowed: Vectors) -> object:
        asked.append(depth)
        return find(self, query, depth, allowed)

    monkeypatch.setattr(Floats, "find", counted)
    _, falling = _indexed(tmp_path / "i", "falling")
    with Index(tmp_path / "i") as index, index.state() as snapshot:
        for vectors, doubt in ((falling, False), (_vectors("near", dim=32), True)):
            segment = _replaced(snapshot, vectors)
            best_documents([Aim(segment, vectors[5], segment.members.live)], 10, lambda keys: dict.fromkeys(keys, ""))
            assert bool(asked) == doubt


def test_an_index_of_floats_is_searched_through_bytes(tmp_path: Path) -> None:
    for number, options in enumerate(({}, {"codec": "float16"}, {"codec": "int8"})):
        indexed(tmp_path / f"i{number}", {f"d{each}": f"w{each}" for each in range(50)}, **options)
        with Index(tmp_path / f"i{number}") as index:
            [segment] = index.snapshot().segments
            assert isinstance(segment.stored.candidates, Bounded) == (not options)
