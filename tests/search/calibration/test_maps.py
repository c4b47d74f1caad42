"""The map from similarity to relevance: laws, fitting, choice, figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibrating import shifted
from hypothesis import given
from hypothesis import strategies as st

from emb.errors import DataError
from emb.search.calibration import choose
from emb.search.calibration.choose import CANDIDATES, FEWEST, PLATT, choose_map, held_out_relevance
from emb.search.calibration.figures import calibration_error, figures, thresholds
from emb.search.calibration.fit import _PATIENCE, _Best, _penalised, _Sample, fit_map, loss_and_gradient
from emb.search.calibration.folds import FOLDS, folds_of, splits
from emb.search.calibration.maps import Map, blank
from emb.search.calibration.pairs import Pairs, pair_up

ALL = ("scores", "vector")
SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.sampled_from([1e-3, 1.0, 50.0])


def drawn(seed: int, scale: float) -> tuple[Map, np.ndarray, np.ndarray]:
    """Any map over all features of vectors of four numbers, vectors of three queries, and scores of fifteen hits."""
    random = np.random.default_rng(seed)
    means, slopes, offsets = (random.normal(0, scale, 7).tolist() for _ in range(3))
    found = Map(
        ALL,
        float(random.normal(0, scale)),
        float(random.uniform(1e-3, 10)),
        means,
        random.uniform(1e-3, 10, 7).tolist(),
        float(random.uniform(-5, 5)),
        float(random.normal(0, scale)),
        slopes,
        offsets,
    )
    return found, random.normal(size=(3, 4)), random.normal(0, scale, (3, 15))


@given(SEEDS, SCALES)
def test_a_higher_score_is_never_less_relevant(seed: int, scale: float) -> None:
    found, vectors, scores = drawn(seed, scale)
    relevance = found.relevance(vectors, scores)
    assert relevance.shape == scores.shape
    assert ((relevance >= 0) & (relevance <= 1)).all()
    order = np.argsort(scores, axis=1)
    assert (np.diff(np.take_along_axis(relevance, order, axis=1), axis=1) >= 0).all()
    assert (np.diff(np.take_along_axis(found.logits(vectors, scores), order, axis=1), axis=1) > 0).all()


@given(SEEDS, SCALES)
def test_a_stretched_map_has_stretched_logits(seed: int, scale: float) -> None:
    found, vectors, scores = drawn(seed, scale)
    there, here = found.stretched(2.5, -1.0).logits(vectors, scores), 2.5 * found.logits(vectors, scores) - 1
    np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-6 * np.abs(here).max())


def test_the_gradient_is_that_of_the_loss() -> None:
    pairs, random = shifted(20), np.random.default_rng(1)
    sample = _Sample.of(blank(ALL, pairs.vectors, pairs.scores), pairs)
    found = random.normal(0, 0.3, 2 + 2 * sample.features.shape[1])
    _, gradient = loss_and_gradient(sample, found)
    for place in range(len(found)):
        step = np.zeros_like(found)
        step[place] = 1e-6
        numeric = (loss_and_gradient(sample, found + step)[0] - loss_and_gradient(sample, found - step)[0]) / 2e-6
        assert gradient[place] == pytest.approx(numeric, abs=1e-7)


def test_the_step_that_was_best_on_other_queries_is_kept() -> None:
    best = _Best(lambda found: float(abs(found[0] - 3)), np.zeros(1))
    for step in range(1, 3 + _PATIENCE + 1):
        best.see(np.array([float(step)]))
    with pytest.raises(StopIteration):
        best.see(np.array([99.0]))
    assert best.found.tolist() == [3.0]
    learnt = _Best(lambda found: float(found[0]), np.zeros(1))
    learnt.see(np.ones(1))
    assert learnt.found.tolist() == [0.0]  # nothing helped


def test_what_does_not_carry_over_is_not_learnt() -> None:
    pairs = shifted(60)
    names = np.random.default_rng(5).normal(size=(60, 200))  # a vector that says which query it is, and no more
    fitted, other = (
        Pairs(pairs.texts[part], names[part], pairs.scores[part], pairs.relevant[part])
        for part in (slice(0, 30), slice(30, 60))
    )
    itself, held = fit_map(("vector",), fitted, fitted), fit_map(("vector",), fitted, other)
    assert np.abs(held.slopes).sum() + np.abs(held.offsets).sum() < 0.5 * (
        np.abs(itself.slopes).sum() + np.abs(itself.offsets).sum()
    )


def test_queries_at_different_heights_need_a_map_that_sees_them() -> None:
    pairs = shifted()
    found = choose_map(pairs)
    raw = figures(pairs.scores, pairs.relevant)
    assert found.figures[PLATT].average_precision == pytest.approx(raw.average_precision, abs=0.05)
    assert found.kind != PLATT
    best = found.figures[found.kind]
    assert best.average_precision > raw.average_precision + 0.3
    assert best.precision["0.9"] > 0.9 > 0.5 > raw.precision["0.9"]
    assert best.error < 0.05
    kept = {each.relevance: each for each in found.thresholds}
    assert kept[0.5].precision is not None
    assert kept[0.5].precision > 0.9
    assert kept[0.5].hits == pytest.approx(3, abs=0.5)


def test_relevance_is_the_share_that_is_relevant() -> None:
    pairs = shifted()
    row = fit_map((), pairs, pairs)
    relevance = row.relevance(pairs.vectors, pairs.scores)
    assert relevance.mean() == pytest.approx(pairs.relevant.mean(), abs=0.01)  # balanced, it would be a half


def test_the_best_candidate_is_kept_and_of_equals_platt(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = shifted()
    truth = pairs.relevant.astype(float)
    told = {(): truth, ("scores",): truth, ALL: 1 - truth}
    monkeypatch.setattr(choose, "held_out_relevance", lambda uses, _: told[uses])
    assert choose_map(pairs).kind == PLATT
    told[()] = 1 - truth
    found = choose_map(pairs)
    assert found.kind == "adapter (scores)"
    assert found.thresholds == thresholds(truth, pairs.relevant)  # its own, not those of another


def test_no_query_is_judged_by_a_map_that_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = shifted()
    seen: list[set[str]] = []
    judged: list[int] = []

    class Spy:
        def relevance(self, vectors: np.ndarray, scores: np.ndarray) -> np.ndarray:
            rows = [int(np.flatnonzero((pairs.vectors == vector).all(axis=1))[0]) for vector in vectors]
            assert not seen[-1] & {pairs.texts[row] for row in rows}
            judged.extend(rows)
            return scores

    def fitted(uses: tuple[str, ...], one: Pairs, other: Pairs) -> Spy:
        assert not set(one.texts) & set(other.texts)
        seen.append({*one.texts, *other.texts})
        return Spy()

    monkeypatch.setattr(choose, "fit_map", fitted)
    found = held_out_relevance(CANDIDATES[PLATT], pairs)
    assert sorted(judged) == list(range(len(pairs)))
    np.testing.assert_array_equal(found, pairs.scores)  # each in its own row
    assert len(seen) == FOLDS
    assert all(len(each) > len(pairs) / 2 for each in seen)


def test_a_query_asked_twice_stays_on_one_side() -> None:
    assert len(set(folds_of(["What is rain", "what is  RAIN "]))) == 1
    folds = folds_of([f"query {row}" for row in range(200)])
    assert (folds_of([f"query {row}" for row in range(100)]) == folds[:100]).all()  # whatever else is asked
    assert set(folds) == set(range(FOLDS))
    for split in splits(folds):
        parts = [set(each) for each in (split.fitted, split.stopping, split.held_out)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 200


def test_too_few_queries_are_refused_with_the_number_needed() -> None:
    pairs = shifted(FEWEST)
    pairs.relevant.flags.writeable = True
    choose_map(pairs)
    pairs.relevant[0] = False
    with pytest.raises(DataError, match=f"{FEWEST - 1} of {FEWEST} queries find .* {FEWEST} are needed"):
        choose_map(pairs)


def test_what_there_is_nothing_to_learn_from_is_refused() -> None:
    pairs = shifted(FEWEST)
    with pytest.raises(DataError, match=f"0 of {FEWEST} queries find an irrelevant document"):
        choose_map(replace(pairs, relevant=np.ones_like(pairs.relevant)))
    with pytest.raises(DataError, match=f"1 of {FEWEST} queries find a relevant document .* no two of them the same"):
        choose_map(replace(pairs, texts=["The same", *["the  same"] * (FEWEST - 1)]))


def test_figures_are_those_of_their_definitions() -> None:
    values = np.array([[0.9, 0.8, 0.6, 0.3]])
    relevant = np.array([[True, False, True, False]])
    found = figures(values, relevant)
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert found.precision["0.5"] == 1.0
    assert found.precision["0.9"] == pytest.approx(2 / 3)
    assert found.error == pytest.approx((0.1 + 0.8 + 0.4 + 0.3) / 4)
    tied = figures(np.array([[0.5, 0.5, 0.1]]), np.array([[True, False, False]]))
    assert tied.average_precision == 0.5  # no threshold tells the two apart
    assert calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0
    [low, high, none] = thresholds(values, relevant, (0.5, 0.85, 0.95))
    assert (low.precision, low.recall, low.hits) == (pytest.approx(2 / 3), 1.0, 3.0)
    assert (high.precision, high.recall, high.hits) == (1.0, 0.5, 1.0)
    assert (none.precision, none.recall) == (None, 0.0)


def test_pairs_are_the_beginning_of_each_ranking() -> None:
    random = np.random.default_rng(0)
    queries, documents = random.normal(size=(300, 8)), random.normal(size=(310, 8))
    order = np.argsort(-(queries @ documents.T), axis=1)
    found = pair_up([str(row) for row in range(300)], queries, documents, [{row[4], row[200]} for row in order], "dot")
    np.testing.assert_allclose(found.scores, -np.sort(-(queries @ documents.T), axis=1)[:, :100], rtol=1e-5, atol=1e-6)
    assert (found.relevant == (np.arange(100) == 4)).all()
    few = pair_up(["a"], queries[:1], documents[:5], [{4}], "dot")
    assert (few.scores.shape, few.relevant.sum()) == ((1, 5), 1)


def test_what_sets_queries_apart_has_a_price_and_what_they_share_has_none() -> None:
    pairs = shifted(20)
    sample = _Sample.of(blank(ALL, pairs.vectors, pairs.scores), pairs)
    found = np.random.default_rng(0).normal(size=2 + 2 * sample.features.shape[1])
    (plain, slope), (loss, gradient) = loss_and_gradient(sample, found), _penalised(sample, found)
    assert loss - plain == pytest.approx(1e-3 * (found[2:] ** 2).sum())
    np.testing.assert_allclose(gradient - slope, [0, 0, *(2e-3 * found[2:])], atol=1e-12)


def test_the_error_is_that_of_the_first_ten_hits() -> None:
    random = np.random.default_rng(0)
    values, relevant = random.uniform(size=(4, 30)), random.uniform(size=(4, 30)) < 0.5
    assert figures(values, relevant).error == calibration_error(values[:, :10], relevant[:, :10])
    assert figures(values, relevant).error != calibration_error(values, relevant)


def test_beyond_three_deviations_a_feature_says_no_more() -> None:
    pairs = shifted(20)
    found = blank(("scores",), pairs.vectors, pairs.scores)
    near, far = (found.standardised(pairs.vectors, pairs.scores + height) for height in (0, 1000))
    assert np.abs(near).max() < 3
    assert far[:, :2].tolist() == [[3, 3]] * 20  # the best score, and the mean
