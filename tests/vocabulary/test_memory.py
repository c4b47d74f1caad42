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


@pytest.mark.parametrize(
    ("table", "process", "told"), [(100, 0, False), (9000, 0, True), (100, 9000, True), (100, 7000, False)]
)
def test_it_is_said_where_four_bits_buy_nothing(
    table: int, process: int, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"linear": 130, "linear_floats": 1000, "table": table, "adapter": 1, "activations": 1, "process": process}
    tell_worth(Memory(**{name: megabytes * 10**6 for name, megabytes in parts.items()}))
    said = capsys.readouterr().err
    assert ("plain LoRA is faster" in said) == told
    assert (f"about 870 of {1002 + table + process:,} MB here" in said) == told


def test_qlora_is_told_and_plain_lora_is_not(
    wide_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = trained(wide_bert, tmp_path / "a", max_steps=1)
    assert "QLoRA" not in capsys.readouterr().err
    trained(wide_bert, tmp_path / "b", max_steps=1, qlora=True)
    assert "QLoRA saves about 0 of" in capsys.readouterr().err
    assert plain.memory.peak >= plain.memory.process > 0 or torch.cuda.is_available()
