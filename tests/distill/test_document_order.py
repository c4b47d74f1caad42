"""The loss that learns in which order the teacher finds the documents."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SENTENCES, tiny_bert

from emb.artifact.manifest import LayerDimPair
from emb.data.corpus import Corpus, Text
from emb.distill import document_order, one_student
from emb.distill.document_order import DocumentOrder
from emb.distill.retention import KnownItems
from emb.distill.train import Split, Training
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.model.static import StaticEncoder
from emb.recipes.recipe import DataRecipe, RankingRecipe, Recipe, StudentRecipe, TrainingRecipe
from emb.similarity import unit
from emb.teachers.cache import in_memory

DIM = 16
WHOLE, CUT = LayerDimPair(2, DIM), LayerDimPair(2, 4)


def _vectors(count: int, seed: int, dim: int = DIM) -> Any:
    return unit(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))


def _order(vectors: Any, **recipe: Any) -> DocumentOrder:
    return DocumentOrder.of(vectors, RankingRecipe(**recipe), seed=0)


def _expected(student: Any, teacher: Any, documents: Any, count: int, temperature: float) -> float:
    """The same in plain numpy, query by query."""
    found = []
    for mine, goal in zip(student, teacher, strict=True):
        scores = documents @ goal
        first = np.argsort(-scores)[:count]
        cut = documents[first, : len(mine)]
        cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        both = [each / temperature for each in (scores[first], cut @ mine / np.linalg.norm(mine))]
        wanted, given = (each - np.log(np.exp(each).sum()) for each in both)
        found.append((np.exp(wanted) * (wanted - given)).sum())
    return float(np.mean(found))


def test_it_is_the_divergence_over_the_first_documents_at_each_dim() -> None:
    documents, teacher, student = _vectors(60, 0), _vectors(7, 1), 3 * _vectors(7, 2)
    order = _order(documents, documents=20, temperature=0.1, weight=0.5)
    loss = order.loss({2: torch.from_numpy(student)}, torch.from_numpy(5 * teacher), [WHOLE, CUT])
    whole, cut = (_expected(student[:, :dim], teacher, documents, 20, 0.1) for dim in (DIM, 4))
    assert float(loss) == pytest.approx(0.5 * (whole + cut) / 2, rel=1e-4)


def test_a_perfect_student_loses_nothing() -> None:
    documents, teacher = _vectors(60, 0), torch.from_numpy(_vectors(7, 1))
    assert float(_order(documents).loss({2: 2 * teacher}, teacher, [WHOLE])) == pytest.approx(0, abs=1e-5)
    assert float(_order(3 * documents).loss({2: teacher}, teacher, [WHOLE])) == pytest.approx(0, abs=1e-5)


def test_of_too_many_documents_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_order, "_MOST", 5)
    first, again, other = (DocumentOrder.of(_vectors(30, 0), RankingRecipe(), seed) for seed in (0, 0, 1))
    assert first.documents.shape == (5, DIM)
    assert torch.equal(first.documents, again.documents)
    assert not torch.equal(first.documents, other.documents)


def _part(model: EmbeddingModel) -> Split:
    rows = model.tokenizer().encode([f"{a} {b}" for a in SENTENCES[:8] for b in SENTENCES[:8]])
    return Split(rows, in_memory(_vectors(len(rows), 3, 32)))


def _divergence(model: EmbeddingModel, part: Split, order: DocumentOrder) -> float:
    found = np.zeros((len(part.rows), 32), np.float32)
    for places, vectors in model.embed_ids(part.rows):
        found[places] = vectors.numpy()
    goal = part.targets.take(range(len(part.rows)))
    return float(order.loss({2: torch.from_numpy(found)}, torch.from_numpy(goal), [LayerDimPair(2, 32)]))


def test_a_document_that_a_cut_leaves_nothing_of() -> None:
    vectors = _vectors(9, 0, 32)
    vectors[3, :8] = 0
    targets, outputs = (torch.from_numpy(_vectors(4, seed, 32)) for seed in (1, 2))
    assert torch.isfinite(_order(vectors).loss({1: outputs}, targets, [LayerDimPair(1, 8)]))


def test_training_learns_the_order(tmp_path: Path) -> None:
    order = _order(_vectors(40, 4, 32), documents=20, temperature=0.2)
    reached = {}
    for name, given in (("with", order), ("without", None)):
        torch.manual_seed(0)
        model = load_model(tiny_bert(tmp_path / name, layers=2)).eval()
        part = _part(model)
        recipe = TrainingRecipe(max_steps=30, epochs=30, lr=2e-3, tokens_per_batch=512, precision="fp32")
        Training(model, part, part, [LayerDimPair(2, 32)], recipe, tmp_path / f"run-{name}", "a", given).run()
        reached[name] = _divergence(model, part, order)
    assert reached["with"] < 0.8 * reached["without"], reached


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("missing", ["documents", "weight", "lengths", ""])
def test_where_it_is_learned(missing: str, static: bool, tmp_path: Path) -> None:
    model = load_model(tiny_bert(tmp_path / "m", layers=2))
    if static:
        model = EmbeddingModel(StaticEncoder.from_rows(torch.randn(50, 32)), model.hf_tokenizer, model.spec)
    if missing == "lengths":
        model.spec = type(model.spec)(**{**vars(model.spec), "normalize": False})
    search = None if missing == "documents" else KnownItems([], [], _vectors(9, 0, 32))
    recipe = Recipe(teacher="t", ranking=RankingRecipe(weight=float(missing != "weight")))
    found = one_student._order(model, recipe, SimpleNamespace(search=search))  # type: ignore[arg-type]
    assert (found is None) is bool(missing)


def test_a_run_goes_on_with_its_own_ranking_alone() -> None:
    corpus = Corpus([Text("a")])

    def identity(for_documents: bool = True, layers: int = 2, **ranking: Any) -> str:
        data = DataRecipe(documents=["d.txt"] if for_documents else [])
        recipe = Recipe(teacher="t", data=data, student=StudentRecipe(layers=layers), ranking=RankingRecipe(**ranking))
        return one_student._identity(recipe, corpus, "f")

    assert len({identity(), identity(weight=2), identity(documents=9), identity(temperature=1)}) == 4
    assert identity(layers=0) != identity(layers=0, weight=2)
    assert identity(for_documents=False) == identity(for_documents=False, weight=2)
