"""A table as a product of two factors: the same at the start, trained by them, and one table again at the end."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from emb.artifact.manifest import LayerDimPair
from emb.distill.train import Split, Training
from emb.errors import UsageError
from emb.model.embedding_model import EmbeddingModel, ModelSpec, load_model, save_model
from emb.model.static import StaticEncoder
from emb.recipes.recipe import TrainingRecipe
from emb.teachers.cache import in_memory
from emb.vocabulary.factorised import factorised
from emb.vocabulary.surgery import embedding_of

INNER = 80
TEXTS = [np.asarray([2, *range(20 + n, 26 + n), 3], np.int32) for n in range(24)]  # ids 20 to 48 alone


@pytest.fixture
def model(bert_folder: Path) -> EmbeddingModel:
    """A tiny BERT that a test may change."""
    torch.set_num_threads(1)
    return load_model(bert_folder)


def _vectors(model: EmbeddingModel) -> Tensor:
    found = torch.zeros(len(TEXTS), model.dim)
    for places, vectors in model.embed_ids(TEXTS):
        found[torch.from_numpy(places)] = vectors
    return found


def _train(model: EmbeddingModel, folder: Path, steps: int = 20) -> None:
    """Towards random vectors, the table and whatever stands in for it alone being trained."""
    targets = np.random.default_rng(0).normal(size=(len(TEXTS), model.dim)).astype(np.float32)
    split = Split(TEXTS, in_memory(targets))
    recipe = TrainingRecipe(
        epochs=100,
        max_steps=steps,
        lr=3e-3,
        weight_decay=0,
        tokens_per_batch=128,
        precision="fp32",
        train_token_embeddings=True,
    )
    folder.mkdir()
    Training(model, split, split, [LayerDimPair(model.exits[-1], model.dim)], recipe, folder, "a").run()


@pytest.mark.parametrize("inner", [32, INNER])
def test_the_product_starts_as_the_table(model: EmbeddingModel, inner: int) -> None:
    before, vectors = embedding_of(model).weight.detach().clone(), _vectors(model)
    with factorised(model, inner) as (wide, mixing):
        assert wide.shape == (len(before), inner)
        assert mixing.shape == (inner, 32)
        assert float((wide @ mixing - before).abs().max().detach()) <= 1e-6
        assert float((_vectors(model) - vectors).abs().max()) <= 1e-5
    assert embedding_of(model).weight.shape == before.shape
    assert float((embedding_of(model).weight - before).abs().max().detach()) <= 1e-6


def test_the_factors_are_trained_and_their_product_is_what_is_saved(model: EmbeddingModel, tmp_path: Path) -> None:
    names = set(model.state_dict())
    with factorised(model, INNER) as factors:
        before = [factor.detach().clone() for factor in factors]
        _train(model, tmp_path / "run")
        assert not any(torch.equal(factor, old) for factor, old in zip(factors, before, strict=True))
        assert not torch.equal(factors[0][:, 32:], before[0][:, 32:])
        assert not torch.equal(factors[1][32:], before[1][32:])
        product, vectors = (factors[0] @ factors[1]).detach(), _vectors(model)
    assert set(model.state_dict()) == names
    assert torch.equal(embedding_of(model).weight, product)
    save_model(model, tmp_path / "saved")
    assert float((_vectors(load_model(tmp_path / "saved")) - vectors).abs().max()) <= 1e-5


def test_rows_that_no_text_uses_move_with_the_others(model: EmbeddingModel, tmp_path: Path) -> None:
    plain = copy.deepcopy(model)
    start = embedding_of(model).weight.detach().clone()
    _train(plain, tmp_path / "plain")
    with factorised(model, INNER):
        _train(model, tmp_path / "factorised")
    assert torch.equal(embedding_of(plain).weight[60], start[60])
    assert float((embedding_of(model).weight[60] - start[60]).detach().norm()) > 0.01 * float(start[60].norm())


def test_it_is_one_table_again_after_an_error(model: EmbeddingModel) -> None:
    vectors, shapes = _vectors(model), {name: value.shape for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        with factorised(model, INNER):
            raise KeyboardInterrupt
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    assert float((_vectors(model) - vectors).abs().max()) <= 1e-5


def test_the_rows_of_a_static_encoder_too(model: EmbeddingModel, tmp_path: Path) -> None:
    rows = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    static = EmbeddingModel(StaticEncoder.from_rows(rows.clone()), model.hf_tokenizer, ModelSpec())
    vectors = _vectors(static)
    with factorised(static, 40):
        assert float((_vectors(static) - vectors).abs().max()) <= 1e-5
        _train(static, tmp_path / "run")
        trained = _vectors(static)
    assert float((trained - vectors).abs().max()) > 1e-3
    assert float((_vectors(static) - trained).abs().max()) <= 1e-5
    assert embedding_of(static).weight.shape == (60, 16)


def test_the_random_part_follows_the_seed(model: EmbeddingModel) -> None:
    found = []
    for seed in (0, 0, 1):
        with factorised(copy.deepcopy(model), INNER, seed) as (_, mixing):
            found.append(mixing.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_product_narrower_than_the_table_is_refused(model: EmbeddingModel) -> None:
    with pytest.raises(UsageError, match="inner dim of 31 cannot hold rows of 32"):
        with factorised(model, 31):
            pass
