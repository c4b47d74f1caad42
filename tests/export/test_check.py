"""A traced graph is held against its model on short, varied and empty rows too, and one of experts is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import tiny_bert
from tokenizers import processors
from torch import Tensor

from emb.errors import ArtifactError
from emb.export.equivalence import check_graph
from emb.export.graph import write_graph
from emb.model.embedding_model import EmbeddingModel, load_model


@pytest.fixture
def model(tmp_path: Path) -> EmbeddingModel:
    """A tiny BERT that may be changed."""
    return load_model(tiny_bert(tmp_path / "bert"))


def _turned(model: EmbeddingModel, when: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Make `model` turn the vectors round of rows `when(ids, mask)` is true of, as a branch would that the tracer did
    not see.
    """
    embed = model.embed

    def turned(ids: Tensor, mask: Tensor) -> Tensor:
        return embed(ids, mask) * (1 - 2 * when(ids, mask).float())[:, None] + when(ids, mask).float()[:, None]

    model.embed = turned  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize("length", range(2, 9))
def test_a_branch_for_short_texts_is_found(model: EmbeddingModel, tmp_path: Path, length: int) -> None:
    graph = write_graph(model, tmp_path / "model.onnx")
    check_graph(model, graph)
    _turned(model, lambda ids, mask: mask.sum(1) == length)
    with pytest.raises(ArtifactError, match="BertModel: the traced graph gives other vectors"):
        check_graph(model, graph)


def test_a_branch_for_what_begins_otherwise_is_found(model: EmbeddingModel, tmp_path: Path) -> None:
    graph = write_graph(model, tmp_path / "model.onnx")
    _turned(model, lambda ids, mask: ids[:, 0] // 25 == 3)  # an eighth of the vocabulary
    with pytest.raises(ArtifactError, match="other vectors"):
        check_graph(model, graph)


def test_a_mixture_of_experts_is_named(model: EmbeddingModel, tmp_path: Path) -> None:
    graph = write_graph(model, tmp_path / "model.onnx")
    model.encoder.config.num_local_experts = 4
    check_graph(model, graph)  # experts alone are no fault
    _turned(model, lambda ids, mask: mask.sum(1) == 3)
    with pytest.raises(ArtifactError, match=r"BertModel \(a mixture of experts\): the traced graph"):
        check_graph(model, graph)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_an_empty_text_without_tokens(tmp_path: Path, pooling: str) -> None:
    folder = tiny_bert(tmp_path / "bert")
    model = load_model(folder)
    model.hf_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    model.spec = type(model.spec)(pooling=pooling, normalize=True, max_length=64)
    assert len(model.tokenizer().encode([""])[0]) == 0
    graph = write_graph(model, tmp_path / "model.onnx")
    check_graph(model, graph)
    _turned(model, lambda ids, mask: mask.sum(1) == 0)
    with pytest.raises(ArtifactError, match="other vectors"):
        check_graph(model, graph)
