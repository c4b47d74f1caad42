"""Structures that do not look at every row: when they answer, and what they say of what they left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexing import indexed, texts

from emb.errors import ArtifactError
from emb.quantize.vectors.scalar import Float32Codec
from emb.search.index import fitted, graphs
from emb.search.index.description import Layout
from emb.search.index.graphs import LARGE, LARGE_BITS, Graph, build, factory_for
from emb.search.index.reader import Index
from emb.search.index.space import Space
from emb.similarity import Vectors, unit

ROWS, DIM = 400, 8
CODEC = Float32Codec(DIM)


def _vectors() -> Vectors:
    return unit(np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32))


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    build("IVF16,Flat", CODEC, _vectors(), "dot", tmp_path / "graph")
    return Graph(tmp_path / "graph", CODEC, _vectors(), "dot")


def _asked(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the structure is asked for, each time."""
    depths: list[int] = []
    search = graph._searched

    def searched(query: Vectors, depth: int) -> Any:
        depths.append(depth)
        return search(query, depth)

    monkeypatch.setattr(graph, "_searched", searched)
    return depths


def test_of_what_few_pass_every_row_is_looked_at(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, depths, allowed = _vectors(), _asked(graph, monkeypatch), np.zeros(ROWS, bool)
    allowed[::20] = True
    found = graph.find(vectors[3], 5, allowed)
    rows = np.flatnonzero(allowed)
    assert found.rows.tolist() == rows[np.argsort(-(vectors[rows] @ vectors[3]))][:5].tolist()
    assert (depths, found.least) == ([], None)
    assert graph.find(vectors[3], 20, allowed).least == -np.inf


def test_of_what_half_pass_twice_as_many_are_asked_for(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    depths, allowed = _asked(graph, monkeypatch), np.arange(ROWS) % 2 == 0
    found = graph.find(_vectors()[3], 10, allowed)
    assert depths == [20]
    assert allowed[found.rows].all()
    assert (len(found.rows), found.least) == (10, None)  # what was left out may be better


def test_all_that_there_is_is_found(graph: Graph) -> None:
    graph.index.nprobe = 1  # which finds too few
    assert (graph._searched(_vectors()[3], ROWS) >= 0).all()
    found = graph.find(_vectors()[3], ROWS, np.ones(ROWS, bool))
    assert (sorted(found.rows.tolist()), found.least) == (list(range(ROWS)), -np.inf)


def test_it_looks_as_hard_as_it_must(graph: Graph) -> None:
    assert 1 < graph.index.nprobe <= 16
    queries = _vectors()[::8]
    truth = np.argsort(-(queries @ _vectors().T), axis=1)[:, :10]
    found = [graph._searched(query, 10) for query in queries]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)]) > 0.95


def test_a_structure_of_other_rows_and_a_damaged_one_are_refused(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="of 400 rows, the segment has 399"):
        Graph(tmp_path / "graph", CODEC, _vectors()[1:], "dot")
    (tmp_path / "graph").write_bytes(b"IxF" * 20)
    with pytest.raises(ArtifactError, match="damaged"):
        Graph(tmp_path / "graph", CODEC, _vectors(), "dot")


@pytest.mark.parametrize(
    ("rows", "codec", "measure", "factory"),
    [
        (LARGE - 1, "float32", "dot", None),
        (LARGE, "float32", "dot", "IVF2048,Flat"),
        (LARGE, "int8", "euclidean", "IVF2048,SQ8"),
        (LARGE, "float32", "manhattan", None),
        (LARGE, "binary", "dot", None),
        (LARGE_BITS, "binary", "dot", "BIVF16384"),
    ],
)
def test_how_many_rows_are_many(rows: int, codec: str, measure: str, factory: str | None) -> None:
    assert factory_for(rows, codec, measure) == factory
    if factory:
        graphs.check_factory(factory, codec, DIM, measure)


def _fitted(count: int, codec: str) -> Any:
    sample = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    return fitted.fit(sample, Layout(codec=codec), Space.of("cosine", True, DIM)).codec


def test_few_documents_to_fit_ranges_to_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    _fitted(999, "int8")
    assert "int8: fitted to 999 vectors only" in " ".join(capsys.readouterr().err.split())
    _fitted(1000, "int8")
    _fitted(100, "float16")  # learns nothing
    assert not capsys.readouterr().err


def test_bits_are_those_of_a_random_rotation() -> None:
    atoms = _fitted(100, "binary").atoms
    assert (np.abs(atoms) > 1e-6).sum() > DIM * DIM / 2  # plain signs have one number in a row


def test_a_rotation_that_was_changed_is_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(60), rotate=True, dim=8)
    [path] = (tmp_path / "i").glob("fitted-*/rotation.npy")
    np.save(path, np.load(path) * np.float32(1.01))
    with Index(tmp_path / "i") as index, pytest.raises(ArtifactError, match="changed since it was written"):
        index.snapshot()
