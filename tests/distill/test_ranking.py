"""The last step: projections learn the teacher's order of documents, and keep it only where search gets better."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SENTENCES, tiny_bert

from emb.artifact.manifest import LayerDimPair
from emb.distill import ranking
from emb.distill.retention import KnownItems
from emb.distill.train import Split
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.model.static import StaticEncoder
from emb.recipes.recipe import RankingRecipe
from emb.similarity import unit
from emb.teachers.cache import in_memory

DIM = 16


def _queries_and_documents() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    documents = unit(random.normal(size=(200, DIM)).astype(np.float32))
    return unit(documents[:150] + 0.2 * random.normal(size=(150, DIM)).astype(np.float32)), documents


def _kept(vectors: np.ndarray[Any, Any], queries: np.ndarray[Any, Any], documents: np.ndarray[Any, Any]) -> float:
    first, true = ((each @ documents.T).argmax(1) for each in (vectors, queries))
    return float((first == true).mean())


def test_a_map_brings_the_teacher_s_order_back() -> None:
    queries, documents = _queries_and_documents()
    bent = queries @ (np.eye(DIM) + 0.4 * np.random.default_rng(1).normal(size=(DIM, DIM))).astype(np.float32)
    ranked = ranking._ranked(queries, documents, 20)
    turn = ranking.fitted_map(bent, ranked, [DIM], RankingRecipe(epochs=200, lr=1e-2), seed=0)
    assert _kept(bent @ turn.T, queries, documents) > _kept(bent, queries, documents) + 0.3


def test_a_perfect_student_stays_what_it_is() -> None:
    queries, documents = _queries_and_documents()
    ranked = ranking._ranked(queries, documents, 20)
    lengths = {DIM: torch.ones(len(documents))}
    loss = ranking._loss(torch.from_numpy(queries), ranked, torch.arange(len(queries)), lengths, RankingRecipe())
    assert float(loss) == pytest.approx(0.0, abs=1e-5)
    turn = ranking.fitted_map(queries, ranked, [DIM], RankingRecipe(), seed=0)
    np.testing.assert_allclose(turn, np.eye(DIM), atol=0.02)


def test_the_documents_are_those_that_the_teacher_finds_first() -> None:
    queries, documents = _queries_and_documents()
    ranked = ranking._ranked(3 * queries, 2 * documents, 5)
    np.testing.assert_array_equal(ranked.first.numpy(), np.argsort(-queries @ documents.T, axis=1)[:, :5])
    assert ranking._ranked(queries, documents, 10**6).first.shape == (150, 200)


@pytest.mark.parametrize("head", ["none", "linear", "chain"])
def test_the_map_goes_into_the_projection(head: str, tmp_path: Any) -> None:
    model = load_model(tiny_bert(tmp_path / "m", layers=2, hidden=32)).eval()
    torch.manual_seed(0)
    layers = {
        "none": torch.nn.Identity(),
        "linear": torch.nn.Linear(32, 16, bias=False),
        "chain": torch.nn.Sequential(torch.nn.Linear(32, 24, bias=False), torch.nn.Linear(24, 16, bias=False)),
    }
    model.heads = torch.nn.ModuleDict({"2": layers[head]})
    ids = torch.tensor([[1, 2, 3, 4]])
    before = model(ids, torch.ones_like(ids))[2]
    turn = torch.randn(before.shape[1], before.shape[1])
    ranking.turn_exit(model, 2, turn)
    torch.testing.assert_close(model(ids, torch.ones_like(ids))[2], before @ turn.T, rtol=1e-4, atol=1e-4)


def _training(tmp_path: Any) -> Any:
    """What the step sees of a training: a model that is its own teacher."""
    model = load_model(tiny_bert(tmp_path / "m", layers=2)).eval()
    rows = model.tokenizer().encode([f"{a} {b}" for a in SENTENCES for b in SENTENCES[:4]])
    vectors = np.zeros((len(rows), 32), np.float32)
    for places, found in model.embed_ids(rows):
        vectors[places] = found.numpy()
    part = Split(rows, in_memory(vectors))
    recipe = SimpleNamespace(seed=0, tokens_per_batch=512)
    training = SimpleNamespace(
        student=model, exits=[2], pairs=[LayerDimPair(2, 32)], train=part, held_out=part, recipe=recipe
    )
    return training, KnownItems(list(range(40)), list(range(40)), vectors)


@pytest.mark.parametrize("better", [True, False])
def test_it_stays_only_where_held_out_search_gets_better(
    better: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, search = _training(tmp_path)
    before = {name: weight.clone() for name, weight in training.student.state_dict().items()}
    told = iter([0.5, 0.6] if better else [0.5, 0.5])
    monkeypatch.setattr(ranking, "gains_at", lambda *_: np.full(40, next(told)))
    assert ranking.rank_projections(training, search, RankingRecipe()) == {2: better}
    after = training.student.state_dict()
    assert (after.keys() == before.keys()) != better, "a projection where none was, or none where one should be"


def test_the_judgement_is_of_queries_that_were_held_out(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    training, search = _training(tmp_path)
    seen: list[Any] = []

    def judged(vectors: Any, *_: Any) -> Any:
        seen.append(vectors)
        return np.zeros(40)

    monkeypatch.setattr(ranking, "gains_at", judged)
    training.held_out = Split(training.held_out.rows[::-1], training.held_out.targets)
    ranking.rank_projections(training, search, RankingRecipe())
    expected = training.student(*_ids(training.held_out.rows[0]))[2]
    np.testing.assert_allclose(seen[0][0], expected.detach().numpy()[0], atol=1e-4)


def _ids(row: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.as_tensor(row)[None].long()
    return ids, torch.ones_like(ids)


def test_where_it_is_not_done(tmp_path: Any) -> None:
    training, search = _training(tmp_path)
    assert ranking.rank_projections(training, search, RankingRecipe(epochs=0)) == {}
    few = KnownItems(search.rows[:20], search.sources[:20], search.documents)
    assert ranking.rank_projections(training, few, RankingRecipe()) == {}
    training.student.heads = torch.nn.ModuleDict({"2": torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh())})
    assert ranking.rank_projections(training, search, RankingRecipe()) == {}
    base = training.student
    training.student = EmbeddingModel(StaticEncoder.from_rows(torch.randn(50, 32)), base.hf_tokenizer, base.spec)
    training.exits = [0]
    assert ranking.rank_projections(training, search, RankingRecipe()) == {}


def test_what_chance_makes_of_it_is_no_gain() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=400)
    before = np.full(400, 0.5)
    assert ranking.is_gain(before, before + 0.2 + noise)
    assert not ranking.is_gain(before, before + 0.02 + noise - noise.mean())
    assert not ranking.is_gain(before, before)
    assert not ranking.is_gain(before + 0.1, before)


def test_gains_are_means_over_dims() -> None:
    _, documents = _queries_and_documents()
    search = KnownItems([0, 1], [0, 1], documents)
    found = ranking.gains_at(documents[[0, 7]], search, [DIM, 4])
    assert found[0] == 1.0
    assert found[1] < 1.0
