"""Rows of new tokens: how they begin, which way is taken, and that they alone are trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from emb.artifact.manifest import LayerDimPair
from emb.data.corpus import Text
from emb.distill.train import Split
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.teachers.cache import in_memory
from emb.vocabulary.adaptation.row_distillation import ROW_TRAINING, distil_rows
from emb.vocabulary.choose_rows import made_rows, write_best
from emb.vocabulary.extend import Extended, extend
from emb.vocabulary.initialise import METHODS, Ground, rows_of
from emb.vocabulary.new_rows import training_new_rows
from emb.vocabulary.reading import Reading, read, vectors_of
from emb.vocabulary.reading import rows_of as ids_of
from emb.vocabulary.surgery import replace_vocabulary, table_of, tokenizer_json

WORDS = ("zebrastripe", "seafoam", "riverboat", "windmill")
TEXTS = [f"the {word} and a {other}, {place}" for place in "abc" for word in WORDS for other in WORDS]


@pytest.fixture
def model(tmp_path: Path) -> EmbeddingModel:
    return load_model(tiny.tiny_bert(tmp_path / "bert", layers=2))


def _ground(model: EmbeddingModel, count: int = 3) -> Ground:
    source = tokenizer_json(model)
    return Ground(
        source,
        table_of(model).detach().numpy().copy(),
        extend(source, TEXTS, count),
        TEXTS,
        lambda texts: vectors_of(model, model.tokenizer().encode(texts)),
    )


def _extended(model: EmbeddingModel, ground: Ground, method: str = "mean") -> range:
    first = len(ground.source.tokens)
    replace_vocabulary(model, ground.extended.tokenizer, range(first), torch.from_numpy(rows_of(method, ground)))
    return range(first, first + len(ground.extended.added))


def _old_rows(ground: Ground, token: str) -> np.ndarray:
    return ground.table[[ground.source.pieces[piece] for piece in ground.extended.compounds.pieces(token)]]


def test_rows_are_what_their_names_say(model: EmbeddingModel) -> None:
    ground = _ground(model)
    made = {method: rows_of(method, ground) for method in METHODS}
    for place, token in enumerate(ground.extended.added):
        old = _old_rows(ground, token)
        np.testing.assert_allclose(made["mean"][place], old.mean(0), atol=1e-6)
        np.testing.assert_allclose(made["first"][place], old[0], atol=1e-6)
        np.testing.assert_allclose(made["align"][place], old.mean(0), atol=1e-6)  # alone, a token is read as in texts
    assert all(rows.shape == (len(ground.extended.added), 32) and np.isfinite(rows).all() for rows in made.values())
    assert not np.allclose(made["merge"], made["mean"])
    assert np.array_equal(rows_of("random", ground), made["random"])


def test_merge_goes_along_the_merges(model: EmbeddingModel) -> None:
    ground = _ground(model)
    token = max(ground.extended.added, key=lambda each: len(ground.extended.compounds.pieces(each)))
    known = ground.extended.compounds.by_token[token]
    place = {name: row for row, name in enumerate(ground.extended.added)}

    def row(name: str) -> np.ndarray:
        if name in place:
            return rows_of("merge", ground)[place[name]]
        made = ground.extended.compounds.by_token.get(name)
        return (row(made.left) + row(made.right)) / 2 if made else ground.table[ground.source.pieces[name]]

    np.testing.assert_allclose(
        rows_of("merge", ground)[place[token]], (row(known.left) + row(known.right)) / 2, atol=1e-6
    )


def test_omp_gives_back_a_word_that_is_there(model: EmbeddingModel) -> None:
    ground = _ground(model)
    known = next(token for token in ground.source.pieces if token == "the")
    twin = Ground(
        ground.source,
        ground.table,
        Extended(ground.source, [known], ground.extended.compounds),
        ["the " * 3, "rain the cat"],
        ground.embed,
    )
    np.testing.assert_allclose(rows_of("omp", twin)[0], ground.table[ground.source.pieces[known]], atol=1e-4)


def test_auto_takes_the_best_on_whole_texts(model: EmbeddingModel) -> None:
    ground = _ground(model)
    dev = read(model, [Text(text) for text in TEXTS])
    made = made_rows("auto", ground)
    new_ids = _extended(model, ground)
    best, scores = write_best(model, new_ids, made, dev)
    by_name = {each.method: each.cosine for each in scores}
    assert set(by_name) == set(METHODS)
    assert by_name[best] == max(by_name.values()) >= by_name["mean"]
    written = table_of(model).detach().numpy()[new_ids.start : new_ids.stop]
    np.testing.assert_array_equal(written, made[best])


def test_texts_without_new_tokens_decide_nothing(model: EmbeddingModel) -> None:
    ground = _ground(model)
    plain = [Text(text) for text in tiny.SENTENCES[:4]]
    dev = read(model, [*plain, *(Text(text) for text in TEXTS[:4])])
    alone = Reading(dev.texts[4:], dev.rows[4:], dev.vectors[4:])
    made = made_rows("mean", ground)
    new_ids = _extended(model, ground)
    assert write_best(model, new_ids, made, dev)[1] == write_best(model, new_ids, made, alone)[1]


def test_new_rows_are_looked_up_like_a_table(model: EmbeddingModel) -> None:
    new_ids = _extended(model, _ground(model))
    rows = ids_of(model, [Text(text) for text in TEXTS])
    before = vectors_of(model, rows)
    with training_new_rows(model, new_ids.start, len(new_ids)):
        np.testing.assert_allclose(vectors_of(model, rows), before, atol=1e-6)
    np.testing.assert_array_equal(vectors_of(model, rows), before)


def _splits(model: EmbeddingModel, reading: Reading) -> tuple[Split, Split]:
    rows = ids_of(model, reading.texts)
    half = len(rows) // 2
    return tuple(  # type: ignore[return-value]
        Split(rows[part], in_memory(reading.vectors[part])) for part in (slice(None, half), slice(half, None))
    )


def _train(model: EmbeddingModel, reading: Reading, new_ids: range, place: Path, **changes: float) -> float:
    train, held_out = _splits(model, reading)
    recipe = ROW_TRAINING.model_copy(update={"epochs": 30.0, "lr": 1e-2, **changes})
    [score] = distil_rows(model, new_ids, train, held_out, [LayerDimPair(2, 32)], recipe, place)
    return score.cosine


def test_new_rows_alone_are_trained(model: EmbeddingModel, tmp_path: Path) -> None:
    reading = read(model, [Text(text) for text in TEXTS])
    new_ids = _extended(model, _ground(model), "random")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = _train(model, reading, new_ids, tmp_path / "a", epochs=0)
    assert _train(model, reading, new_ids, tmp_path / "b") > start + 0.01
    table = next(name for name, value in before.items() if value.shape == table_of(model).shape)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name != table)
    assert torch.equal(after[table][: new_ids.start], before[table][: new_ids.start])
    assert not torch.equal(after[table][list(new_ids)], before[table][list(new_ids)])


def test_an_interrupted_training_goes_on(
    model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emb.distill.loop import Loop

    reading = read(model, [Text(text) for text in TEXTS])
    new_ids = _extended(model, _ground(model), "random")
    start = table_of(model).detach().clone()
    _train(model, reading, new_ids, tmp_path / "whole")
    whole = table_of(model).detach().clone()
    with torch.no_grad():
        table_of(model).copy_(start)
    step = Loop._train_step

    def stopping(self: Loop, batch: np.ndarray, rate: float) -> float:
        if self.step == 5:
            self._checkpoint()
            raise KeyboardInterrupt
        return step(self, batch, rate)

    monkeypatch.setattr(Loop, "_train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        _train(model, reading, new_ids, tmp_path / "stopped")
    monkeypatch.setattr(Loop, "_train_step", step)
    with torch.no_grad():
        table_of(model).copy_(start)
    _train(model, reading, new_ids, tmp_path / "stopped")
    assert torch.equal(table_of(model), whole)


def test_a_sample_of_the_texts_is_read(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from emb.vocabulary import initialise

    monkeypatch.setattr(initialise, "_SAMPLE", 10)
    ground = _ground(model)
    assert len(ground.texts) == 48
    assert ground.sample == ground.texts[::5]
    monkeypatch.setattr(initialise, "_SAMPLE", 100)
    assert ground.sample == ground.texts
