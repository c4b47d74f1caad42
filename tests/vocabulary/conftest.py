"""Models whose layers are wide enough for blocks of 64 weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_bert, tiny_qwen3


@pytest.fixture(scope="package")
def wide_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers and 64 dims."""
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert", layers=2, hidden=64)


@pytest.fixture(scope="package")
def wide_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers and 64 dims."""
    return tiny_qwen3(tmp_path_factory.mktemp("models") / "qwen3", layers=2, hidden=64)
