"""Which rows stay: exactly as many as asked, those that must, and then those that texts would miss."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SENTENCES
from torch import Tensor

from emb.distill.train import Split
from emb.errors import UsageError
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.teachers.cache import in_memory
from emb.vocabulary.adaptation.gates import Gates, choosing_recipe, gated
from emb.vocabulary.adaptation.learned_pruning import Thresholds, kept_by_thresholds
from emb.vocabulary.adaptation.row_masks import Masks, kept_by_masks
from emb.vocabulary.choice import fallback_rows, highest
from emb.vocabulary.surgery import embedding_of, table_of
from emb.vocabulary.usage import counts_of

SPECIALS = [0, 1, 2, 3, 4]
LEARNED = {"masks": (kept_by_masks, Masks), "thresholds": (kept_by_thresholds, Thresholds)}
RECIPES = {
    way: choosing_recipe(steps, 0.1, tokens_per_batch=256).model_copy(update={"precision": "fp32"})
    for way, steps in (("masks", 60), ("thresholds", 200))
}


@pytest.fixture(scope="module")
def model(bert_folder: Path) -> EmbeddingModel:
    """A tiny BERT whose table has a row for each word of the sentences."""
    torch.set_num_threads(1)
    return load_model(bert_folder)


@pytest.fixture(scope="module")
def words(model: EmbeddingModel) -> list[int]:
    """Forty ids that stand for a whole word each; the texts below use the first half."""
    whole = model.tokenizer().encode([" ".join(SENTENCES)])[0]
    return sorted({int(row) for row in whole} - set(SPECIALS))[-40:]


@pytest.fixture(scope="module")
def train(model: EmbeddingModel, words: list[int]) -> Split:
    """Texts over the first twenty words, and the model's own vectors of them."""
    return _split(model, words[:20])


def _split(model: EmbeddingModel, words: list[int], texts: int = 120) -> Split:
    rng = random.Random(0)
    rows = [np.asarray([2, *rng.choices(words, k=rng.randint(3, 9)), 3], np.int32) for _ in range(texts)]
    vectors = np.zeros((texts, model.dim), np.float32)
    for places, found in model.embed_ids(rows):
        vectors[places] = found.numpy()
    return Split(rows, in_memory(vectors))


def _kept(
    way: str,
    model: EmbeddingModel,
    train: Split,
    folder: Path,
    *,
    rows: int,
    always: Collection[int] = SPECIALS,
    fallback: Tensor | None = None,
    **changes: Any,
) -> list[int]:
    recipe = RECIPES[way].model_copy(update=changes)
    choose = LEARNED[way][0]
    return choose(model, train, rows=rows, always=always, recipe=recipe, folder=folder, fallback=fallback)


@pytest.mark.parametrize("way", LEARNED)
def test_the_rows_that_texts_use_stay(
    way: str, model: EmbeddingModel, train: Split, words: list[int], tmp_path: Path
) -> None:
    kept = _kept(way, model, train, tmp_path, rows=25)
    assert kept == sorted([*SPECIALS, *words[:20]])


@pytest.mark.parametrize("way", LEARNED)
def test_what_must_stay_does_and_the_number_is_exact(
    way: str, model: EmbeddingModel, train: Split, words: list[int], tmp_path: Path
) -> None:
    useless = words[30:]
    kept = _kept(way, model, train, tmp_path, rows=22, always=[*SPECIALS, *useless])
    assert len(kept) == len(set(kept)) == 22
    assert {*SPECIALS, *useless} < set(kept)
    assert set(kept) - {*SPECIALS, *useless} < set(words[:20])


@pytest.mark.parametrize("way", LEARNED)
def test_rows_that_their_pieces_stand_for_go_first(
    way: str, model: EmbeddingModel, train: Split, words: list[int], tmp_path: Path
) -> None:
    # Ten of the twenty words read the same without their rows.
    fallback = fallback_rows(embedding_of(model).weight, {word: [word] for word in words[:10]})
    fallback[words[10:20]] = 0
    kept = _kept(way, model, train, tmp_path, rows=15, fallback=fallback)
    assert kept == sorted([*SPECIALS, *words[10:20]])


@pytest.mark.parametrize("way", LEARNED)
def test_the_same_seed_gives_the_same_rows_and_leaves_the_model_as_it_is(
    way: str, model: EmbeddingModel, train: Split, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (_kept(way, model, train, tmp_path / name, rows=15) for name in ("a", "b"))
    assert first == again
    assert first != _kept(way, model, train, tmp_path / "c", rows=15, seed=1)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("way", LEARNED)
@pytest.mark.parametrize("rows", [4, 10_000])
def test_a_number_that_cannot_be_is_refused(
    way: str, rows: int, model: EmbeddingModel, train: Split, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"{rows:,} rows cannot be kept: 5 must stay"):
        _kept(way, model, train, tmp_path, rows=rows)
    assert not any(tmp_path.iterdir())


def test_of_equal_scores_the_lower_id_stays() -> None:
    assert highest(torch.tensor([0.0, 1.0, 1.0, 2.0, 1.0, 0.0]), 4, [5]) == [1, 2, 3, 5]
    assert highest(torch.zeros(1000), 500, []) == list(range(500))


def test_a_fallback_is_the_mean_of_the_pieces(model: EmbeddingModel) -> None:
    table = embedding_of(model).weight
    found = fallback_rows(table, {9: [5, 6, 6]})
    torch.testing.assert_close(found[9], (table[5] + 2 * table[6]) / 3)
    assert torch.equal(found[10], table[10])
    assert not found.requires_grad


@pytest.mark.parametrize("way", LEARNED)
def test_an_open_row_is_read_as_it_stands_and_a_closed_one_as_its_fallback(
    way: str, model: EmbeddingModel, words: list[int]
) -> None:
    gates = _gates(way, model, SPECIALS)
    ids = torch.tensor([[2, words[0], words[1], 3]])
    own, fallback = embedding_of(model)(ids), torch.randn_like(embedding_of(model).weight)
    with torch.no_grad():
        next(gates.parameters()).fill_(30 if way == "masks" else -30)
        next(gates.parameters())[words[1]] *= -1
        with gated(model, gates, fallback):
            read = embedding_of(model)(ids)
    torch.testing.assert_close(read[0, [0, 1, 3]], own[0, [0, 1, 3]])
    torch.testing.assert_close(read[0, 2], fallback[words[1]])
    assert torch.equal(embedding_of(model)(ids), own)


@pytest.mark.parametrize("way", LEARNED)
def test_rows_that_must_stay_are_read_as_they_stand_while_others_close(way: str, model: EmbeddingModel) -> None:
    gates = _gates(way, model, SPECIALS)
    with torch.no_grad():
        next(gates.parameters()).fill_(-30 if way == "masks" else 30)
    assert gates().nonzero().flatten().tolist() == SPECIALS or gates()[5:].max() < 1e-9
    assert gates()[SPECIALS].tolist() == [1] * 5


def _gates(way: str, model: EmbeddingModel, always: Collection[int]) -> Gates:
    table = embedding_of(model).weight.detach()
    return Masks(torch.ones(len(table)), always) if way == "masks" else Thresholds(table, always)


def test_masks_that_are_not_trained_choose_by_counts(model: EmbeddingModel, train: Split, tmp_path: Path) -> None:
    kept = _kept("masks", model, train, tmp_path, rows=12, epochs=0)
    found = torch.from_numpy(counts_of(train.rows, len(table_of(model))))
    assert found[train.rows[0][1]] == sum(int((row == train.rows[0][1]).sum()) for row in train.rows)
    assert kept == highest(found, 12, SPECIALS)


def test_the_step_lets_a_gradient_through_near_the_threshold(model: EmbeddingModel) -> None:
    gates = Thresholds(embedding_of(model).weight.detach(), [])
    distances = torch.tensor([0.0, 0.2, 0.4, 0.7, 1.5, -0.2, -1.5])
    with torch.no_grad():
        gates.thresholds[:7] = gates.norms[:7] - distances
    gates.openness()[:7].sum().backward()
    assert gates.openness()[1:7].tolist() == [1, 1, 1, 1, 0, 0]
    assert gates.thresholds.grad is not None
    assert (-gates.thresholds.grad)[1:7].tolist() == pytest.approx([1.2, 0.4, 0.4, 0, 1.2, 0], abs=1e-4)


def test_norms_are_those_of_the_paper_in_units_of_their_mean(model: EmbeddingModel) -> None:
    table = embedding_of(model).weight.detach()
    norms = Thresholds(table, []).norms
    torch.testing.assert_close(norms, table.abs().sum(1) / table.abs().sum(1).mean())


@pytest.mark.parametrize("way", LEARNED)
def test_training_closes_what_no_text_uses(
    way: str, model: EmbeddingModel, train: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _caught(monkeypatch)
    _kept(way, model, train, tmp_path, rows=15)
    used = counts_of(train.rows, len(table_of(model))) > 0
    assert float(made[0]().detach()[~used][3:].mean()) < 0.2  # behind the three special tokens
    assert float(made[0]().detach()[used].mean()) > 0.4


@pytest.mark.parametrize("way", LEARNED)
def test_an_interrupted_choice_goes_on_to_the_rows_it_would_have_found(
    way: str, model: EmbeddingModel, train: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emb.vocabulary.adaptation import gates as room

    made = _caught(monkeypatch)
    whole = _kept(way, model, train, tmp_path / "whole", rows=15, checkpoint_seconds=0)
    steps: list[int] = []
    loss = room._Choosing.batch_loss

    def until_the_thirtieth(training: Any, batch: Any) -> Tensor:
        steps.append(training.step)
        if len(steps) == 30:
            raise OSError("the power is gone")
        return loss(training, batch)

    monkeypatch.setattr(room._Choosing, "batch_loss", until_the_thirtieth)
    with pytest.raises(OSError, match="power"):
        _kept(way, model, train, tmp_path / "halved", rows=15, checkpoint_seconds=0)
    assert _kept(way, model, train, tmp_path / "halved", rows=15, checkpoint_seconds=0) == whole
    assert steps == [*range(30), *range(29, RECIPES[way].max_steps or 0)]
    assert torch.equal(made[0].scores(), made[2].scores())


def _caught(monkeypatch: pytest.MonkeyPatch) -> list[Gates]:
    """The gates of each choice from now on."""
    made: list[Gates] = []
    begin = Gates.__init__

    def noted(gates: Gates, *arguments: Any) -> None:
        begin(gates, *arguments)
        made.append(gates)

    monkeypatch.setattr(Gates, "__init__", noted)
    return made


def test_other_settings_start_anew_beside_the_old_ones(model: EmbeddingModel, train: Split, tmp_path: Path) -> None:
    for rows in (15, 16):
        for fallback in (None, torch.ones_like(embedding_of(model).weight)):
            _kept("masks", model, train, tmp_path, rows=rows, fallback=fallback, max_steps=2)
    assert len(list(tmp_path.iterdir())) == 4
