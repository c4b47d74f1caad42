"""Shared fixtures: tiny models (built once per session, never written to) and their texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from tiny import SENTENCES, tiny_bert, tiny_qwen3, tiny_student

from emb.progress import set_quiet

# A loaded machine is slow now and then; that is no failure.
settings.register_profile("emb", deadline=None)
settings.load_profile("emb")


@pytest.fixture(autouse=True)
def _loud() -> None:
    """Undo the `--quiet` of an earlier test: it is a setting of the process."""
    set_quiet(False)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Twenty texts of mixed lengths that the tiny tokenizers were trained on."""
    return list(SENTENCES)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-layer, 32-dim BERT folder with mean pooling and no projection."""
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-layer, 32-dim Qwen3 folder with last-token pooling and a query prompt."""
    return tiny_qwen3(tmp_path_factory.mktemp("models") / "tiny-qwen3")


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student artifact: 3 layers, 48 dims, exits trained at 1, 2 and 3 layers."""
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny-student")
