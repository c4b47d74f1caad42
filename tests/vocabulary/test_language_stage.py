"""The language stage: it learns, moves only what it should, and goes on where it was killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilling import finish, kill_when, latest_step, log, start
from families import FAMILIES, write_family
from language_stage import splits, trained, used_ids
from safetensors.torch import load_file
from torch import nn

from emb.artifact.manifest import LayerDimPair
from emb.errors import CheckpointError, MissingExtra, TrainingError, UsageError
from emb.model.embedding_model import EmbeddingModel, load_model, save_model
from emb.model.static import StaticEncoder
from emb.similarity import cosines
from emb.vocabulary.adaptation import adapter_training, language_stage
from emb.vocabulary.adaptation.adapter_training import AdapterTraining
from emb.vocabulary.adaptation.lora import adapt
from emb.vocabulary.adaptation.quantized_base import load_dequantized, load_quantized

KINDS = pytest.mark.parametrize("qlora", [False, True], ids=["lora", "qlora"])


def _table(model: EmbeddingModel) -> torch.Tensor:
    weight: torch.Tensor = model.encoder.get_input_embeddings().weight
    return weight.detach()


@KINDS
def test_it_learns(wide_bert: Path, tmp_path: Path, qlora: bool) -> None:
    result = trained(wide_bert, tmp_path, qlora=qlora, max_steps=40)
    [before] = [record["cosine"]["2x64"] for record in log(tmp_path) if "cosine" in record]
    assert result.scores[0].cosine > before + 0.1
    assert result.memory.peak > result.memory.linear > 0


@KINDS
def test_only_new_rows_of_the_table_change(wide_qwen3: Path, tmp_path: Path, qlora: bool) -> None:
    model = load_model(wide_qwen3)
    new = used_ids(model, 3)
    result = trained(wide_qwen3, tmp_path, new_ids=new, qlora=qlora, weight_decay=0.5)
    changed = (_table(result.model) != _table(model)).any(1).nonzero().flatten().tolist()
    assert changed == sorted(new)


def test_without_new_tokens_the_table_stays_and_layers_move(wide_bert: Path, tmp_path: Path) -> None:
    before, after = load_model(wide_bert), trained(wide_bert, tmp_path).model
    assert torch.equal(_table(before), _table(after))
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    linears = [layer for layer in before.encoder.modules() if isinstance(layer, nn.Linear)]
    assert sum(moved) == len(linears) == 12


def test_projections_stay(student_folder: Path, tmp_path: Path) -> None:
    before = load_model(student_folder)
    after = trained(student_folder, tmp_path, pairs=[LayerDimPair(1, 16), LayerDimPair(3, 48)]).model
    assert after.exits == before.exits == [1, 2, 3]
    for a, b in zip(before.heads.parameters(), after.heads.parameters(), strict=True):
        assert torch.equal(a, b)


def test_layers_above_the_deepest_exit_get_no_update(student_folder: Path, tmp_path: Path) -> None:
    before = load_model(student_folder)
    after = trained(student_folder, tmp_path, pairs=[LayerDimPair(1, 48)]).model
    moved = {
        name
        for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert moved
    assert all(".layer.0." in name for name in moved)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_architecture(name: str, tmp_path: Path) -> None:
    folder = write_family(name, tmp_path / "model")
    model = load_model(folder)
    new = used_ids(model, 2)
    result = trained(folder, tmp_path / "out", new_ids=new, max_steps=3)
    changed = (_table(result.model) != _table(model)).any(1).nonzero().flatten().tolist()
    assert changed == sorted(new)
    _same_ties(model, result.model)


def _same_ties(before: EmbeddingModel, after: EmbeddingModel) -> None:
    names = [
        {name for name, each in model.named_parameters(remove_duplicate=False) if each is _parameter(model)}
        for model in (before, after)
    ]
    assert names[0] == names[1]
    assert len(names[0]) >= 1


def _parameter(model: EmbeddingModel) -> nn.Parameter:
    weight: nn.Parameter = model.encoder.get_input_embeddings().weight
    return weight


@KINDS
def test_recomputing_changes_nothing(wide_qwen3: Path, tmp_path: Path, qlora: bool) -> None:
    new = used_ids(load_model(wide_qwen3), 2)
    plain, again = (
        trained(wide_qwen3, tmp_path / str(recompute), new_ids=new, qlora=qlora, recompute=recompute, max_steps=4)
        for recompute in (False, True)
    )
    for a, b in zip(plain.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_recomputing_happens(wide_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

    calls, original = [0], Qwen3MLP.forward

    def counted(self: Any, states: Any) -> Any:
        calls[-1] += torch.is_grad_enabled()
        return original(self, states)

    monkeypatch.setattr(Qwen3MLP, "forward", counted)
    trained(wide_qwen3, tmp_path / "kept", max_steps=2)
    calls.append(0)
    trained(wide_qwen3, tmp_path / "recomputed", max_steps=2, recompute=True)
    assert calls == [4, 8], "two layers, two steps"


def test_an_architecture_that_cannot_recompute_says_so(
    wide_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.BertModel.supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match="BertModel cannot recompute") as caught:
        trained(wide_bert, tmp_path, recompute=True)
    assert "leave out" in caught.value.hint


@KINDS
def test_the_adapter_is_peft_s_own(wide_bert: Path, tmp_path: Path, qlora: bool) -> None:
    from peft import PeftModel

    new = used_ids(load_model(wide_bert), 2)
    result = trained(wide_bert, tmp_path, new_ids=new, qlora=qlora, rank=4, alpha=8)
    config = json.loads((result.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, wide_bert.name)
    base = load_dequantized(wide_bert) if qlora else load_model(wide_bert)
    base.encoder = PeftModel.from_pretrained(base.encoder, str(result.adapter)).eval()
    rows = base.tokenizer().encode(["a list holds items", "the rain in the north"])
    found = cosines(*(language_stage._vectors(model, rows) for model in (base, result.model)))
    assert found.min() > 0.99999
    size = (result.adapter / "adapter_model.safetensors").stat().st_size
    assert size < (wide_bert / "model.safetensors").stat().st_size / 2, "it holds more than what was trained"


def test_a_checkpoint_holds_what_is_trained(wide_bert: Path, tmp_path: Path) -> None:
    trained(wide_bert, tmp_path, new_ids=[7], qlora=True)
    [*_, newest] = sorted((tmp_path / "checkpoints").iterdir())
    names = set(load_file(newest / "model.safetensors"))
    assert names
    assert all("lora_" in name or "trainable_tokens" in name for name in names)


@KINDS
def test_killed_and_resumed_it_ends_with_the_same_weights(wide_bert: Path, tmp_path: Path, qlora: bool) -> None:
    # Wide enough for states in 8 bits: those of less than 4,096 numbers have 32.
    options = {"qlora": qlora, "rank": 64, "max_steps": 16, "checkpoint_seconds": 0, "new_ids": [7, 20]}
    trained(wide_bert, tmp_path / "alone", **options)
    process = start(trained, wide_bert, tmp_path / "killed", **options)
    kill_when(process, lambda: latest_step(tmp_path / "killed") >= 5)
    assert latest_step(tmp_path / "killed") < 16
    assert finish(start(trained, wide_bert, tmp_path / "killed", **options)) == 0
    both = [(tmp_path / run / "adapter" / "adapter_model.safetensors").read_bytes() for run in ("alone", "killed")]
    assert both[0] == both[1]
    states = load_file(tmp_path / "killed" / "checkpoints" / "step-00000016" / "optimizer.safetensors")
    assert any(each.dtype == torch.uint8 for name, each in states.items() if name != "rng") == qlora


@pytest.mark.parametrize("change", [{"qlora": True}, {"rank": 8}, {"alpha": 8}, {"new_ids": [8]}, {"lr": 1e-3}])
def test_another_training_is_not_resumed(wide_bert: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    trained(wide_bert, tmp_path, new_ids=[7], max_steps=2)
    with pytest.raises(CheckpointError, match="belongs to other data"):
        trained(wide_bert, tmp_path, **{"new_ids": [7], "max_steps": 2, **change})


@pytest.mark.parametrize("lost", ["lora_A", "trainable_tokens"])
def test_a_tensor_without_gradient_is_named(
    wide_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    steps: list[int] = []
    original = language_stage.AdapterTraining.batch_loss

    def losing(self: AdapterTraining, batch: Any) -> Any:
        steps.append(self.step)
        if len(steps) == 1:
            tensor = next(t for n, t in self.student.named_parameters() if lost in n and t.requires_grad)
            tensor.register_hook(torch.zeros_like)
        return original(self, batch)

    monkeypatch.setattr(AdapterTraining, "batch_loss", losing)
    with pytest.raises(TrainingError, match=lost) as caught:
        trained(wide_bert, tmp_path, new_ids=used_ids(load_model(wide_bert), 2))
    assert "no gradient" in caught.value.message
    assert steps == [0, 1], "a first factor has no gradient before the second step, and every one has then"


def test_rows_that_no_text_of_the_batch_has_are_not_taken_for_dead(wide_bert: Path, tmp_path: Path) -> None:
    model = load_model(wide_bert)
    table = len(_table(model))
    unused = sorted(set(range(table)) - set(np.concatenate(splits(model)[0].rows).tolist()))[0]
    result = trained(wide_bert, tmp_path, new_ids=[unused], weight_decay=0.5)
    assert torch.equal(_table(result.model)[unused], _table(model)[unused])


def test_a_merge_that_changes_vectors_is_refused(
    wide_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import Linear

    trained(wide_bert, tmp_path, max_steps=20, lr=3e-2)
    monkeypatch.setattr(Linear, "merge", lambda self, *given, **more: self.merged_adapters.append("default"))
    rows = splits(load_model(wide_bert))[1].rows[:4]
    with pytest.raises(TrainingError, match="merged, the model gives other vectors") as caught:
        language_stage.merge_adapter(wide_bert, tmp_path / "adapter", rows, qlora=False)
    assert "peft" in caught.value.hint


@pytest.mark.parametrize("library", ["peft", "bitsandbytes"])
def test_a_missing_library_names_the_extra(wide_bert: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    model = load_model(wide_bert)
    monkeypatch.setitem(sys.modules, library, None)  # type: ignore[arg-type]
    needs = {
        "peft": lambda: adapt(model, [], 2, rank=4, alpha=8),
        "bitsandbytes": lambda: load_quantized(wide_bert, compute=torch.float32, device=torch.device("cpu")),
    }
    with pytest.raises(MissingExtra, match=library) as caught:
        needs[library]()
    assert caught.value.hint == 'pip install "emb-distill[adapt]"'


def test_an_id_beyond_the_table_is_refused(wide_bert: Path, tmp_path: Path) -> None:
    rows = len(_table(load_model(wide_bert)))
    with pytest.raises(UsageError, match=f"token {rows} is new, and the token table has {rows:,} rows"):
        trained(wide_bert, tmp_path, new_ids=[rows])


def test_a_static_encoder_is_refused(wide_bert: Path, tmp_path: Path) -> None:
    base = load_model(wide_bert)
    save_model(EmbeddingModel(StaticEncoder.from_rows(_table(base)), base.hf_tokenizer, base.spec), tmp_path / "m")
    with pytest.raises(UsageError, match="static encoder has no layers"):
        trained(tmp_path / "m", tmp_path / "out", pairs=[LayerDimPair(1, 64)])


def test_the_rows_are_spared_weight_decay_and_the_updates_are_not(wide_bert: Path, tmp_path: Path) -> None:
    groups: list[Any] = []
    original = adapter_training.AdapterTraining.parameter_groups
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterTraining, "parameter_groups", lambda self: groups.extend(original(self)) or groups)
        trained(wide_bert, tmp_path, new_ids=[7], max_steps=1)
    assert [group.get("weight_decay") for group in groups] == [0.01, 0.0]
