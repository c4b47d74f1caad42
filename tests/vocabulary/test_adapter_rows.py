"""Rows of new tokens, read beside the table: as peft's own layer reads them, without a copy of the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import write_family

from emb.model.embedding_model import EmbeddingModel, load_model
from emb.vocabulary.adaptation import lora


def _gradient(folder: Path, monkeypatch: pytest.MonkeyPatch, beside: bool) -> tuple[Any, Any, EmbeddingModel]:
    with monkeypatch.context() as patch:
        if not beside:
            patch.setattr(lora, "look_up_new_rows", lambda encoder: None)
        model = load_model(folder)
        lora.adapt(model, [4, 9], model.layers, rank=2, alpha=4)
    [rows] = [each for name, each in lora.adapter_tensors(model.encoder).items() if lora.is_row(name)]
    with torch.no_grad():
        rows.add_(0.1)
    ids = torch.tensor([[4, 5, 9, 4], [7, 8, 5, 6]])
    vectors = model.embed(ids, torch.ones_like(ids))
    vectors.square().sum(0)[0].backward()
    return vectors.detach(), rows.grad, model


@pytest.mark.parametrize("family", ["bert", "qwen3", "gemma3", "t5"])
def test_vectors_and_gradients_are_peft_s_own(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_family(family, tmp_path / "model")
    torch.manual_seed(0)
    expected, gradient, _ = _gradient(folder, monkeypatch, beside=False)
    torch.manual_seed(0)
    found, ours, _ = _gradient(folder, monkeypatch, beside=True)
    assert gradient.abs().min() > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours, gradient)


@pytest.mark.parametrize("beside", [False, True])
def test_the_table_is_not_copied(wide_bert: Path, monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    _, _, model = _gradient(wide_bert, monkeypatch, beside)
    read = model.encoder.get_input_embeddings()(torch.tensor([[4, 5]]))
    assert ("IndexCopyBackward0" in set(_steps(read.grad_fn))) != beside


def _steps(function: Any) -> Iterator[str]:
    """The names of the steps of a backward pass."""
    yield type(function).__name__
    for parent, _ in function.next_functions:
        yield from _steps(parent) if parent is not None else ()
