"""The ONNX graph gives torch's vectors, whatever the batch and the padding side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emb.export.graph import write_graph
from emb.model.embedding_model import load_model
from emb.quantize.weights import surgery
from emb.quantize.weights.fusing import fuse
from emb.quantize.weights.surgery import graph_bytes
from emb.runtime.encoder import Encoder
from emb.runtime.sessions import open_session
from emb.runtime.torch_encoder import TorchEncoder


class _Graph(Encoder):
    def __init__(self, like: Encoder, path: Path) -> None:
        super().__init__(like.tokenizer, dim=like.dim, prompts=like.prompts, normalize=like.normalize)
        self.session = open_session(path, 1)

    def run(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        return np.asarray(self.session.run(None, {"input_ids": input_ids, "attention_mask": attention_mask})[0])


@pytest.fixture(scope="module", params=["bert_folder", "qwen3_folder", "student_folder"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchEncoder, _Graph]:
    encoder = TorchEncoder(load_model(request.getfixturevalue(request.param)))
    path = write_graph(encoder.model, tmp_path_factory.mktemp("graph") / "model.onnx")
    return encoder, _Graph(encoder, path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=120), min_size=1, max_size=6), side=st.sampled_from(["left", "right"]))
def test_same_vectors_alone_in_any_batch_and_as_torch(
    both: tuple[TorchEncoder, _Graph], texts: list[str], side: str
) -> None:
    torch_encoder, graph = both
    rows = graph.tokenizer.encode([text.encode("utf-8", "ignore").decode() for text in texts])
    alone = np.concatenate([graph.encode_ids([row]) for row in rows])
    together = graph.run(*graph.tokenizer.pad(rows, side))
    np.testing.assert_allclose(together, alone, atol=3e-6)
    np.testing.assert_allclose(alone, torch_encoder.encode_ids(rows, tokens_per_batch=1), atol=3e-6)


def test_names_and_axes_are_those_that_serving_programs_expect(both: tuple[TorchEncoder, _Graph]) -> None:
    session = both[1].session
    assert [each.name for each in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert {each.type for each in session.get_inputs()} == {"tensor(int64)"}
    assert [each.name for each in session.get_outputs()] == ["sentence_embedding", "last_hidden_state"]
    assert session.get_outputs()[0].shape[0] == "batch"


def test_large_weights_lie_beside_the_graph(
    both: tuple[TorchEncoder, _Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentences: list[str]
) -> None:
    monkeypatch.setattr(surgery, "EXTERNAL_ABOVE", 10_000)
    encoder, inside = both
    path = write_graph(encoder.model, tmp_path / "model.onnx")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "model.onnx_data"]
    assert graph_bytes(path) > path.stat().st_size
    np.testing.assert_array_equal(_Graph(encoder, path).encode(sentences), inside.encode(sentences))


def test_fused_graph_reads_the_mask_not_a_count(bert_folder: Path, tmp_path: Path, sentences: list[str]) -> None:
    encoder = TorchEncoder(load_model(bert_folder))
    fused = fuse(write_graph(encoder.model, tmp_path / "model.onnx"), tmp_path / "fused.onnx", 4, 32)
    assert "MultiHeadAttention" in {node.op_type for node in onnx.load(str(fused)).graph.node}
    rows = encoder.tokenizer.encode(sentences)
    expected = encoder.encode_ids(rows, tokens_per_batch=1)
    for side in ("left", "right"):
        np.testing.assert_allclose(_Graph(encoder, fused).run(*encoder.tokenizer.pad(rows, side)), expected, atol=3e-6)


def test_fusing_leaves_what_it_does_not_know(qwen3_folder: Path, tmp_path: Path) -> None:
    graph = write_graph(load_model(qwen3_folder), tmp_path / "model.onnx")
    assert fuse(graph, tmp_path / "fused.onnx", 4, 32) == graph
