"""A base in 4 bits: what is in 4 bits, what stays, and that a model in training keeps the layout it is trained in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from language_stage import recipe, splits, trained
from torch import nn

from emb.artifact.manifest import LayerDimPair
from emb.errors import TrainingError
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.vocabulary.adaptation import adapter_training
from emb.vocabulary.adaptation.adapter_training import AdapterTraining
from emb.vocabulary.adaptation.lora import adapt
from emb.vocabulary.adaptation.quantized_base import (
    evaluation_copy,
    keep_layout,
    load_dequantized,
    load_quantized,
    quantized_layers,
    refuse_rewritten,
)

functional = pytest.importorskip("bitsandbytes.functional")
REWRITES = pytest.mark.skipif(not functional.has_avx512bf16(), reason="only CPUs with AVX512-BF16 rewrite weights")


def _load(folder: Path) -> EmbeddingModel:
    return load_quantized(folder, compute=torch.float32, device=torch.device("cpu"))


def _rewritten(model: nn.Module) -> list[str]:
    return [
        name
        for name, layer in quantized_layers(model).items()
        if getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
    ]


def _run(model: EmbeddingModel) -> torch.Tensor:
    ids = torch.arange(5, 37).reshape(2, 16)
    return model.embed(ids, torch.ones_like(ids))


def test_linear_layers_are_in_four_bits_and_nothing_else(wide_bert: Path) -> None:
    model, floats = _load(wide_bert), load_model(wide_bert)
    linears = {name for name, each in floats.encoder.named_modules() if isinstance(each, nn.Linear)}
    assert set(quantized_layers(model.encoder)) == linears
    for layer in quantized_layers(model).values():
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested
    others = {name: each for name, each in model.encoder.named_parameters() if each.is_floating_point()}
    expected = dict(floats.encoder.named_parameters())
    assert "embeddings.word_embeddings.weight" in others
    assert all(torch.equal(each, expected[name]) for name, each in others.items())


def test_dequantised_it_computes_the_same_and_is_near_the_original(wide_bert: Path) -> None:
    four, floats, original = _run(_load(wide_bert)), _run(load_dequantized(wide_bert)), _run(load_model(wide_bert))
    torch.testing.assert_close(four, floats, rtol=1e-4, atol=1e-5)
    away = 1 - nn.functional.cosine_similarity(floats, original).min()
    assert 1e-4 < away < 0.3


@REWRITES
def test_in_eval_mode_weights_are_rewritten_even_in_training(wide_qwen3: Path) -> None:
    model = _load(wide_qwen3)
    adapt(model, [], 2, rank=4, alpha=8)
    model.eval()
    _run(model)
    # With gradients, where the input has none: the layers that read the token rows.
    first = [f"encoder.layers.0.self_attn.{name}_proj.base_layer" for name in "qkv"]
    assert _rewritten(model) == first
    with torch.no_grad():
        _run(model)
    assert len(_rewritten(model)) == len(quantized_layers(model)) == 14
    with pytest.raises(TrainingError, match="rewritten for inference") as caught:
        refuse_rewritten(model)
    assert "without QLoRA" in caught.value.hint


@REWRITES
def test_the_layout_is_kept(wide_qwen3: Path) -> None:
    model = _load(wide_qwen3)
    adapt(model, [], 2, rank=4, alpha=8)
    model.eval()
    keep_layout(model)
    _run(model)
    with torch.no_grad():
        _run(model)
    assert _rewritten(model) == []
    refuse_rewritten(model)


@REWRITES
def test_a_copy_bears_what_the_model_in_training_does_not(wide_qwen3: Path) -> None:
    model = _load(wide_qwen3)
    adapt(model, [3], 2, rank=4, alpha=8)
    before = {name: layer.weight.data.clone() for name, layer in quantized_layers(model).items()}
    copied = evaluation_copy(model)
    torch.testing.assert_close(_run(copied), _run(model))
    copied.eval()
    with torch.no_grad():
        _run(copied)
    assert len(_rewritten(copied)) == 14
    assert _rewritten(model) == []
    assert all(torch.equal(layer.weight.data, before[name]) for name, layer in quantized_layers(model).items())
    shared = {id(each) for each in model.encoder.parameters()} & {id(each) for each in copied.encoder.parameters()}
    assert len(shared) == sum(each.is_floating_point() for each in model.encoder.parameters())


def test_what_is_evaluated_is_never_what_is_trained(
    wide_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    copy = adapter_training.evaluation_copy

    def copied(model: EmbeddingModel) -> EmbeddingModel:
        found = copy(model)
        seen.append((model, found))
        return found

    ran: list[Any] = []
    monkeypatch.setattr(adapter_training, "evaluation_copy", copied)
    monkeypatch.setattr(
        "emb.distill.train.exit_vectors", lambda student, *given: ran.append(student) or _zeros(student, *given)
    )
    trained(wide_bert, tmp_path, qlora=True, evaluate_every=3, max_steps=7)
    assert len(ran) == 3
    assert [found for _, found in seen] == ran
    assert all(model is not found for model, found in seen)


def _zeros(student: EmbeddingModel, _: Any, rows: Any, exits: Any, tokens: int) -> Any:
    return {n: torch.ones(len(rows), student.dim).numpy() for n in exits}


@REWRITES
def test_a_training_that_is_evaluated_in_place_stops(
    wide_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AdapterTraining.batch_loss

    def meddling(self: AdapterTraining, batch: Any) -> Any:
        self.student.eval()
        return original(self, batch)

    monkeypatch.setattr(AdapterTraining, "batch_loss", meddling)
    with pytest.raises(TrainingError, match="rewritten for inference during the training"):
        trained(wide_bert, tmp_path, qlora=True)


def test_floats_never_lie_in_memory_all_at_once(wide_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.modeling_utils as loading

    asked: list[Any] = []
    original = loading.safe_open  # type: ignore[attr-defined]
    monkeypatch.setattr(loading, "safe_open", lambda *given, **more: asked.append(more) or original(*given, **more))
    before = loading.safe_open  # type: ignore[attr-defined]
    _load(wide_bert)
    assert loading.safe_open is before  # type: ignore[attr-defined]
    told = [more["backend"] for more in asked if "backend" in more]
    assert set(told) <= {"pread"}


def test_the_optimiser_is_in_eight_bits_where_the_base_is_in_four(wide_bert: Path, tmp_path: Path) -> None:
    kinds = []
    for base in (load_model(wide_bert), _load(wide_bert)):
        adapt(base, [], 2, rank=4, alpha=8)
        train, held_out = splits(load_model(wide_bert))
        training = AdapterTraining(
            base, train, held_out, [LayerDimPair(2, 64)], recipe(), tmp_path, "identity", recompute=False
        )
        kinds.append(type(training.raw_optimizer).__name__)
    assert kinds[0] == "AdamW"
    assert kinds[1] in ("AdamW8bit", "PagedAdamW8bit")
