"""The learning rate and the order of batches: laws that resuming relies on."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.distill.schedule import BatchPlan, learning_rate
from emb.recipes.recipe import TrainingRecipe

plans = st.builds(
    BatchPlan, st.lists(st.integers(1, 200), min_size=1, max_size=300), st.integers(16, 400), st.integers(0, 9)
)


@st.composite
def recipes(draw: st.DrawFn) -> TrainingRecipe:
    lr = draw(st.floats(1e-6, 1e-2))
    return TrainingRecipe(
        lr=lr, lr_end=lr * draw(st.floats(0, 1)), cycles=draw(st.integers(1, 5)), warmup_steps=draw(st.integers(0, 200))
    )


@given(recipes(), st.integers(1, 3000), st.data())
def test_rate_stays_between_its_ends(recipe: TrainingRecipe, total: int, data: st.DataObject) -> None:
    rate = learning_rate(data.draw(st.integers(0, total - 1)), total, recipe)
    assert recipe.lr_end * (1 - 1e-9) <= rate <= recipe.lr * (1 + 1e-9)


@settings(max_examples=30)
@given(recipes(), st.integers(1, 600))
def test_rate_falls_within_a_cycle_after_the_warm_up(recipe: TrainingRecipe, total: int) -> None:
    length, warm = -(-total // recipe.cycles), min(recipe.warmup_steps, total // 10)
    rates = [learning_rate(step, total, recipe) for step in range(total)]
    for first in range(0, total, length):
        cycle = rates[max(first, warm) : first + length]
        assert all(later <= earlier for earlier, later in pairwise(cycle))


def test_rate_of_the_leaf_schedule() -> None:
    recipe = TrainingRecipe(lr=1e-4, lr_end=1e-5, cycles=3, warmup_steps=0)
    rates = [learning_rate(step, 300, recipe) for step in (0, 50, 99, 100, 200, 299)]
    assert rates == pytest.approx([1e-4, 5.5e-5, 1.09e-5, 1e-4, 1e-4, 1.09e-5])


def test_warm_up_rises_from_the_low_end() -> None:
    recipe = TrainingRecipe(lr=1e-3, lr_end=1e-5, warmup_steps=10)
    rates = [learning_rate(step, 1000, recipe) for step in range(11)]
    assert rates == sorted(rates)
    assert rates[0] < 2e-4


@settings(max_examples=50)
@given(plans, st.integers(0, 3))
def test_every_text_once_per_epoch(plan: BatchPlan, number: int) -> None:
    assert sorted(np.concatenate(plan.epoch(number)).tolist()) == list(range(len(plan.lengths)))


@settings(max_examples=50)
@given(plans)
def test_no_batch_beyond_the_budget(plan: BatchPlan) -> None:
    for batch in plan.epoch(0):
        longest = max(plan.lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= plan.tokens_per_batch


@settings(max_examples=30)
@given(plans, st.integers(0, 120))
def test_starting_late_gives_the_rest(plan: BatchPlan, start: int) -> None:
    whole = list(islice(plan.batches(), start + 10))[start:]
    late = list(islice(plan.batches(start), 10))
    assert [batch.tolist() for batch in late] == [batch.tolist() for batch in whole]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = list(np.random.default_rng(0).integers(3, 60, 200))

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in BatchPlan(lengths, 256, seed).epoch(epoch)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)


def test_large_corpora_are_dealt_into_pools() -> None:
    plan = BatchPlan(list(range(1, 101)) * 100, 1000, 0)
    together = {frozenset(batch.tolist()) for batch in plan.epoch(0)} & {
        frozenset(batch.tolist()) for batch in plan.epoch(1)
    }
    assert len(together) < len(plan.epoch(0)) / 10  # batches of one long text may recur
