"""Rounding played in floats: what training sees is what the exported file does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from emb.export.graph import write_graph
from emb.machine import has_vnni
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.quantize.weights import int4
from emb.quantize.weights.activations import per_token
from emb.quantize.weights.fake import PRECISIONS, fake_quantised, int8, signs
from emb.quantize.weights.fake import int4 as fake_int4
from emb.quantize.weights.matrices import integer, quantize_tables, weight_only
from emb.quantize.weights.saturation import EIGHT_BITS
from emb.quantize.weights.surgery import save_graph
from emb.runtime.sessions import open_session
from emb.similarity import cosines

Edit = Callable[[onnx.ModelProto], None]


def _per_token(model: onnx.ModelProto) -> None:
    quantize_tables(model)
    integer(model, per_token, EIGHT_BITS)


FILES: dict[str, Edit] = {"int8": _per_token, "int4": lambda model: int4.SCHEME.build(model, [])}


def _vectors(model: EmbeddingModel, sentences: list[str], precision: str | None) -> np.ndarray:
    rows = model.tokenizer().encode(sentences)
    found = np.zeros((len(rows), model.dim), np.float32)
    with fake_quantised(model) as dial:
        dial.precision = PRECISIONS[precision] if precision else None
        for places, vectors in model.embed_ids(rows, tokens_per_batch=128):
            found[places] = vectors.numpy()
    return found


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("folder", ["bert_folder", "qwen3_folder"])
def test_training_sees_what_ships(
    folder: str, precision: str, request: pytest.FixtureRequest, sentences: list[str], tmp_path: Path
) -> None:
    if precision == "int8" and not has_vnni():
        pytest.skip("this processor clips sums of two products to 16 bits, which training does not play")
    model = load_model(request.getfixturevalue(folder))
    graph = onnx.load(str(write_graph(model, tmp_path / "model.onnx")))
    FILES[precision](graph)
    save_graph(graph, tmp_path / "small.onnx")
    session = open_session(tmp_path / "small.onnx", 1)
    ids, mask = model.tokenizer().pad(model.tokenizer().encode(sentences))
    shipped = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]
    played, floats = (_vectors(model, sentences, name) for name in (precision, None))
    closeness, loss = cosines(played, shipped), cosines(played, floats)
    print(f"{folder} {precision}: played to shipped min {closeness.min():.6f}, to floats mean {loss.mean():.6f}")
    assert closeness.min() >= 0.999
    assert loss.mean() < closeness.mean()  # the rounding is there, and it is the same


def test_a_model_leaves_the_block_as_it_entered(bert_folder: Path, sentences: list[str]) -> None:
    model, untouched = load_model(bert_folder), load_model(bert_folder)
    with fake_quantised(model) as dial:
        dial.precision = PRECISIONS["int4"]
    assert set(model.state_dict()) == set(untouched.state_dict())
    assert all(torch.equal(value, untouched.state_dict()[name]) for name, value in model.state_dict().items())
    assert {type(module) for module in model.modules()} == {type(module) for module in untouched.modules()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    ids, mask = (torch.from_numpy(array) for array in model.tokenizer().pad(model.tokenizer().encode(sentences)))
    assert torch.equal(model.embed(ids, mask), untouched.embed(ids, mask))


@pytest.mark.parametrize("rounding", [int8, fake_int4])
def test_gradients_pass_straight_through(rounding: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    values, factor = torch.randn(4, 70, requires_grad=True), torch.randn(4, 70)
    rounded = rounding(values)
    assert not torch.equal(rounded, values)
    (rounded * factor).sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, factor)


def test_every_matrix_learns_through_the_rounding(bert_folder: Path, sentences: list[str]) -> None:
    model = load_model(bert_folder)
    ids, mask = (torch.from_numpy(array) for array in model.tokenizer().pad(model.tokenizer().encode(sentences)))
    with fake_quantised(model) as dial:
        dial.precision = PRECISIONS["int4"]
        model(ids, mask)[3].square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients[1:])


def test_int8_takes_255_steps_of_each_row() -> None:
    values = torch.tensor([[127.0, -3.4, 0.6], [1.27, 0.014, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(int8(values), torch.tensor([[127.0, -3.0, 1.0], [1.27, 0.01, 0.0], [0.0, 0.0, 0.0]]))


def test_int4_takes_16_steps_of_each_block() -> None:
    values = torch.zeros(1, 40)
    values[0, :4] = torch.tensor([-8.0, 7.9, 0.6, -2.4])
    values[0, 32:] = 0.5  # the block that is not full: all at its farthest value
    torch.testing.assert_close(fake_int4(values)[0, :4], torch.tensor([-8.0, 7.0, 1.0, -2.0]))
    torch.testing.assert_close(fake_int4(values)[0, 32:], values[0, 32:])


def test_signs_are_those_of_binary_files_and_their_gradient_ignores_length() -> None:
    vectors = torch.tensor([[0.3, -0.1, 0.0, 2.0]])
    gradients = []
    for size in (1.0, 100.0):
        given = (vectors * size).requires_grad_()
        bits = signs(given)
        torch.testing.assert_close(bits.detach(), torch.tensor([[1.0, -1.0, -1.0, 1.0]]))
        nn.functional.cosine_similarity(bits, torch.ones(1, 4)).sum().backward()
        assert given.grad is not None
        gradients.append(given.grad * size)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("inputs", [64, 70])
def test_4_bit_matrices_are_read_as_they_were_meant(inputs: int) -> None:
    rng = np.random.default_rng(0)
    weight, source = rng.normal(size=(inputs, 24)).astype(np.float32), rng.normal(size=(5, inputs)).astype(np.float32)
    infos = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", width])
        for name, width in (("x", inputs), ("y", 24))
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        infos[:1],
        infos[1:],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    weight_only(model, 32, bits=4)
    [node] = model.graph.node
    assert {attribute.name: attribute.i for attribute in node.attribute} == {
        "K": inputs,
        "N": 24,
        "bits": 4,
        "block_size": 32,
        "accuracy_level": 4,
    }
    found = open_session(model.SerializeToString(), 1).run(["y"], {"x": source})[0]
    expected = int8(torch.from_numpy(source), 32) @ fake_int4(torch.from_numpy(weight.T)).T
    print(
        f"max difference {np.abs(found - expected.numpy()).max():.2e}, mean"
        f" {np.abs(found - expected.numpy()).mean():.2e}"
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_4_bit_levels_are_those_of_onnxruntimes_own_quantiser() -> None:
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits

    from emb.quantize.weights.matrices import levels4

    weight = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)
    packed, scale, zero = np.zeros((24, 2, 16), np.uint8), np.zeros(48, np.float32), np.zeros((24, 1), np.uint8)
    quantize_matmul_4bits(packed, weight, scale, zero, 32, 24, 64, True)
    own, own_scale = levels4(np.ascontiguousarray(weight.T).reshape(24, 2, 32))
    np.testing.assert_allclose(own_scale.reshape(-1), scale, rtol=1e-6)
    halves = [np.stack([levels & 15, levels >> 4]).astype(int) for levels in (own, packed)]
    assert np.abs(halves[0] - halves[1]).max() <= 1  # halves may round either way
    assert (halves[0] == halves[1]).mean() > 0.99
