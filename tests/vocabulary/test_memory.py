"""What an adapter's training takes, and when a base in 4 bits is not worth it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from language_stage import trained

from emb.model.embedding_model import load_model
from emb.vocabulary.adaptation.lora import adapt
from emb.vocabulary.adaptation.memory import Memory, memory_of, tell_worth
from emb.vocabulary.adaptation.quantized_base import load_quantized


def test_bytes_are_counted(wide_bert: Path) -> None:
    floats = load_model(wide_bert)
    four = load_quantized(wide_bert, compute=torch.float32, device=torch.device("cpu"))
    numbers = 2 * (4 * 64 * 64 + 2 * 64 * 256)
    parts = []
    for model in (floats, four):
        adapt(model, [3, 4], 2, rank=4, alpha=8)
        parts.append(memory_of(model, 100, recompute=False))
    updates = 2 * 4 * (4 * (64 + 64) + 2 * (64 + 256)) + 2 * 64
    assert parts[0].linear == parts[0].linear_floats == parts[1].linear_floats == 4 * numbers
    assert 0.125 < parts[1].linear / (4 * numbers) < 0.15
    assert parts[0].adapter == parts[1].adapter == 16 * updates
    assert parts[0].table == parts[1].table == sum(p.nbytes for p in load_model(wide_bert).parameters()) - 4 * numbers
    assert parts[0].activations == 100 * 4 * 2 * (4 * 128 + 2 * 320)
    assert memory_of(four, 100, recompute=True).activations == parts[0].activations // 2


@pytest.mark.parametrize(("table", "told"), [(100, False), (9000, True)])
def test_it_is_said_where_four_bits_buy_nothing(table: int, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory(
        linear=130 * 10**6, linear_floats=10**9, largest=10**6, table=table * 10**6, adapter=10**6, activations=10**6
    )
    tell_worth(memory)
    said = capsys.readouterr().err
    assert ("plain LoRA is faster" in said) == told
    assert ("9,000 MB of token table" in said) == told


def test_plain_lora_is_told_nothing(wide_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(wide_bert, tmp_path / "a", max_steps=1)
    assert "QLoRA" not in capsys.readouterr().err
    trained(wide_bert, tmp_path / "b", max_steps=1, qlora=True)
    assert "QLoRA saves next to nothing here" in capsys.readouterr().err
