"""8-bit recipes: close to the float graph on both architectures, chosen by what was measured."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from emb.export.graph import write_graph
from emb.machine import has_vnni
from emb.model.embedding_model import load_model
from emb.quantize.weights import matrices, select
from emb.quantize.weights.activations import fixed, per_batch, per_token
from emb.quantize.weights.candidate import Candidate, measured
from emb.quantize.weights.fitting import product_losses, to_fit
from emb.quantize.weights.fusing import fuse
from emb.quantize.weights.half import write_fp16
from emb.quantize.weights.judge import Trial, runner, settings
from emb.quantize.weights.matrices import integer, quantize_tables, stored
from emb.quantize.weights.saturation import EIGHT_BITS, SEVEN_BITS, overflow
from emb.quantize.weights.schemes import Scheme, schemes
from emb.quantize.weights.select import select_int8
from emb.quantize.weights.sensitive import influences, sensitive
from emb.quantize.weights.smoothing import smooth
from emb.quantize.weights.surgery import biases, lookups, weighted
from emb.runtime.sessions import Runner
from emb.similarity import cosines

LARGEST = EIGHT_BITS if has_vnni() else SEVEN_BITS  # without VNNI, sums of products of 8 bits are clipped

NAMES = [
    "dynamic",
    "weight-only-128",
    "weight-only-32",
    "dynamic-kept",
    "static-smooth",
    "static-smooth-clipped",
    "static-smooth-kept",
    "per-token-smooth",
    "per-token-smooth-kept",
]


@pytest.fixture(scope="module", params=["bert_folder", "qwen3_folder"])
def graph(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sentences: list[str]
) -> tuple[Path, Path, Trial]:
    model = load_model(request.getfixturevalue(request.param))
    folder = tmp_path_factory.mktemp("graph")
    plain = write_graph(model, folder / "model.onnx")
    tokenizer = model.tokenizer()
    rows = tokenizer.encode(sentences)
    trial = Trial(tokenizer, rows, [tokenizer.pad([row]) for row in rows[:4]], threads=1)
    return plain, fuse(plain, folder / "fused.onnx", 4, 32), trial


def test_every_recipe_is_tried_here(graph: tuple[Path, Path, Trial]) -> None:
    assert [recipe.name for recipe in schemes(graph[0]) if recipe.spare is None] == NAMES
    spare = {recipe.name: recipe.spare for recipe in schemes(graph[0], limit=1) if recipe.spare}
    assert spare == {
        "stored-128": "gate",
        "per-token-smooth-float": "gate",
        "static-smooth-4bit": "limit",
        "per-token-smooth-4bit": "limit",
    }


@pytest.mark.parametrize("name", [*NAMES, "stored-128", "per-token-smooth-float"])
def test_recipe_is_small_and_close_in_every_setting(graph: tuple[Path, Path, Trial], tmp_path: Path, name: str) -> None:
    plain, fused, trial = graph
    [recipe] = [each for each in schemes(plain, LARGEST) if each.name == name]
    found = measured(recipe, fused, tmp_path / "try.onnx", trial, settings(runner(plain, trial), trial), 0.95)
    assert found.min_cosine is not None
    assert found.min_cosine >= 0.95, found
    assert found.bytes < plain.stat().st_size * 0.9  # tiny matrices: the nodes around them weigh too
    stored = {
        tensor.name: numpy_helper.to_array(tensor).dtype.itemsize
        for tensor in onnx.load(str(tmp_path / "try.onnx")).graph.initializer
        if len(tensor.dims) >= 2
    }
    assert sum(size == 1 for size in stored.values()) >= 8


@pytest.mark.parametrize(
    "name", ["weight-only-32", "static-smooth", "static-smooth-kept", "per-token-smooth", "per-token-smooth-kept"]
)
def test_vectors_do_not_depend_on_the_batch_where_tokens_are_quantised_alone(
    graph: tuple[Path, Path, Trial], tmp_path: Path, name: str
) -> None:
    plain, fused, trial = graph
    model = onnx.load(str(fused))
    [recipe] = [each for each in schemes(plain) if each.name == name]
    recipe.build(model, trial.calibration)
    onnx.save(model, str(tmp_path / "q.onnx"))
    alone, left, unsorted = settings(runner(tmp_path / "q.onnx", trial), trial)
    assert cosines(alone, left).min() > 0.99999
    assert cosines(alone, unsorted).min() > 0.99999


def test_tables_keep_a_scale_for_each_row(graph: tuple[Path, Path, Trial]) -> None:
    model = onnx.load(str(graph[0]))
    name = lookups(model.graph)[0].input[0]
    table = next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == name)
    quantize_tables(model)
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert name not in stored
    error = np.abs(stored[f"{name}_int8"] * stored[f"{name}_scale"] - table)
    assert (error <= stored[f"{name}_scale"] * 0.501).all()


def test_the_fastest_that_passes_is_written(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[:3])
    plain, fused, trial = graph
    candidates = select_int8(plain, fused, tmp_path / "onnx" / "int8.onnx", trial, 0.9)
    [chosen] = [each for each in candidates if each.chosen]
    assert chosen.passed
    assert chosen.bytes == (tmp_path / "onnx" / "int8.onnx").stat().st_size
    best = max(
        each.texts_per_second / each.latency_ms
        for each in candidates
        if each.passed and each.texts_per_second and each.latency_ms
    )
    assert chosen.texts_per_second is not None
    assert chosen.latency_ms is not None
    assert chosen.texts_per_second / chosen.latency_ms == best
    assert [each.name for each in (tmp_path / "onnx").iterdir()] == ["int8.onnx"]


def test_if_none_passes_the_closest_is_written_and_marked(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[:2])
    plain, fused, trial = graph
    candidates = select_int8(plain, fused, tmp_path / "onnx" / "int8.onnx", trial, 1.1)
    [chosen] = [each for each in candidates if each.chosen]
    assert not chosen.passed
    assert chosen.min_cosine == max(each.min_cosine or 0 for each in candidates)
    assert "marked as failed" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "onnx" / "int8.onnx").is_file()


def test_a_recipe_that_does_not_run_says_why_and_costs_nothing(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: onnx.ModelProto, batches: object) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    monkeypatch.setattr(select, "schemes", lambda *given: [Scheme("broken", "", broken), *schemes(*given)[:1]])
    plain, fused, trial = graph
    first, second = select_int8(plain, fused, tmp_path / "onnx" / "int8.onnx", trial, 0.9)
    assert "onnxruntime cannot open it" in first.reason
    assert second.chosen


def test_candidates_that_pass_are_ranked_by_speed_not_closeness() -> None:
    near = Candidate("near", "", 1, 1.0, 0.9999, latency_ms=2.0, texts_per_second=100, passed=True)
    fast = Candidate("fast", "", 1, 0.995, 0.991, latency_ms=1.0, texts_per_second=150, passed=True)
    failed = Candidate("failed", "", 1, 0.9, 0.8, latency_ms=0.1, texts_per_second=900)
    assert select._choose([near, fast, failed], 0.99, None).name == "fast"


def test_fp16_keeps_float32_at_its_edges(graph: tuple[Path, Path, Trial], tmp_path: Path) -> None:
    plain, _, trial = graph
    write_fp16(plain, tmp_path / "fp16.onnx")
    stored = [tensor for tensor in onnx.load(str(tmp_path / "fp16.onnx")).graph.initializer if len(tensor.dims) == 2]
    assert {tensor.data_type for tensor in stored} == {onnx.TensorProto.FLOAT16}
    for expected, found in zip(
        settings(runner(plain, trial), trial), settings(runner(tmp_path / "fp16.onnx", trial), trial), strict=True
    ):
        assert found.dtype == np.float32
        assert cosines(expected, found).min() > 0.999


def test_sums_of_two_products_overflow_16_bits_only_with_8_bit_weights() -> None:
    rng = np.random.default_rng(0)
    heavy = np.abs(rng.standard_normal((64, 32))).astype(np.float32)  # of one sign: sums grow
    assert overflow(*_product(heavy, EIGHT_BITS)) > 0
    assert overflow(*_product(heavy, SEVEN_BITS)) == 0


def test_the_matrix_that_moves_the_vectors_most_is_found_by_running_the_model(graph: tuple[Path, Path, Trial]) -> None:
    _, fused, trial = graph
    model = onnx.load(str(fused))
    moved = influences(model, trial.calibration, per_token)
    assert set(moved) == {node.output[0] for node in weighted(model.graph)}
    assert all(0 < each < 0.1 for each in moved.values())
    kept = sensitive(model, trial.calibration, 1 / 6, per_token)
    assert len(kept) == math.ceil(len(moved) / 6)
    assert min(moved[name] for name in kept) >= max(each for name, each in moved.items() if name not in kept)


@pytest.mark.skipif(
    not has_vnni(), reason="the runtime clips sums of two products to 16 bits, which the measure does not"
)
def test_influence_is_what_the_recipe_itself_does_to_one_matrix(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fused, trial = graph
    model = onnx.load(str(fused))
    moved = influences(model, trial.calibration, per_token)
    worst = max(moved, key=lambda name: moved[name])
    monkeypatch.setattr(
        matrices, "weighted", lambda graph: [node for node in weighted(graph) if node.output[0] == worst]
    )
    integer(model, per_token)
    onnx.save(model, str(tmp_path / "one.onnx"))
    cut = [(ids[:, :64], mask[:, :64]) for ids, mask in trial.calibration]
    before, after = (
        np.concatenate([Runner(path).run(batch) for batch in cut]) for path in (fused, tmp_path / "one.onnx")
    )
    assert moved[worst] == pytest.approx(1 - cosines(before, after).min(), rel=0.05, abs=1e-6)


def test_an_activation_that_leaves_no_steps_for_the_others_makes_its_matrix_sensitive() -> None:
    # A channel that is large and counts for nothing: its range leaves no steps for the others.
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    weight[0] = 0
    calm, spoilt = (influences(*_averaged(*_product(weight, None, outlier)), per_batch)["out"] for outlier in (1, 1e4))
    assert calm < 0.01
    assert spoilt > 0.1


def test_stored_matrices_are_floats_again_whatever_their_size(graph: tuple[Path, Path, Trial], tmp_path: Path) -> None:
    _, fused, trial = graph
    for block in (16, 128):  # of 32 inputs, 128 is no part: one scale for a column
        model = onnx.load(str(fused))
        stored(model, block)
        onnx.save(model, str(tmp_path / "stored.onnx"))
        found, expected = (
            np.concatenate([Runner(path).run(batch) for batch in trial.calibration])
            for path in (tmp_path / "stored.onnx", fused)
        )
        assert cosines(found, expected).min() > 0.9995
        levels = [each for each in model.graph.initializer if each.name.endswith("_stored")]
        assert len(levels) >= 8
        assert all(numpy_helper.to_array(each).dtype == np.int8 for each in levels)


def _averaged(
    model: onnx.ModelProto, batches: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[onnx.ModelProto, list[tuple[np.ndarray, np.ndarray]]]:
    """The model with the mean of its tokens as the vector of a text."""
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["out"], ["sentence_embedding"], axes=[1], keepdims=0))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("sentence_embedding"))
    return model, batches


def _product(
    weight: np.ndarray, largest: int | None, outlier: float = 1
) -> tuple[onnx.ModelProto, list[tuple[np.ndarray, np.ndarray]]]:
    """A model of one matrix behind a lookup, quantised if `largest` is given, and a batch for it."""
    table = np.abs(np.random.default_rng(1).standard_normal((9, len(weight)))).astype(np.float32)
    table[:, 0] *= outlier
    nodes = [
        onnx.helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        onnx.helper.make_node("MatMul", ["rows", "weight"], ["out"]),
        onnx.helper.make_node("Cast", ["attention_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
    ]
    kinds = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["b", "t"])
        for name in ("input_ids", "attention_mask")
    ]
    outs = [onnx.helper.make_empty_tensor_value_info(name) for name in ("out", "mask")]
    graph = onnx.helper.make_graph(
        nodes,
        "product",
        kinds,
        outs,
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    if largest:
        integer(model, per_batch, largest)
    return model, [(np.arange(8)[None], np.ones((1, 8), np.int64))]


def test_a_recipe_that_won_before_is_taken_without_trying_others(
    graph: tuple[Path, Path, Trial], tmp_path: Path
) -> None:
    plain, fused, trial = graph
    [only] = select_int8(plain, fused, tmp_path / "int8.onnx", trial, 0.9, known="weight-only-32")
    assert only.chosen
    assert only.name == "weight-only-32"


def test_a_recipe_that_won_before_and_fails_here_is_one_among_all(
    graph: tuple[Path, Path, Trial], tmp_path: Path
) -> None:
    plain, fused, trial = graph
    assert len(select_int8(plain, fused, tmp_path / "int8.onnx", trial, 1.1, known="weight-only-32")) == len(NAMES) + 2


def test_a_bias_is_added_by_the_product_where_one_scale_serves_all_tokens(
    graph: tuple[Path, Path, Trial], tmp_path: Path
) -> None:
    _, fused, trial = graph
    model = onnx.load(str(fused))
    expected = biases(model.graph)
    integer(model, per_batch, LARGEST)
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert sum(len(node.input) == 7 for node in products) == len(expected)
    assert not biases(model.graph)
    assert {total for total, _ in expected.values()} <= {node.output[0] for node in products}
    onnx.save(model, str(tmp_path / "q.onnx"))
    floats, found = (runner(path, trial)(trial.rows) for path in (fused, tmp_path / "q.onnx"))
    assert cosines(floats, found).min() > 0.95


def test_smoothing_leaves_the_vectors_as_they_are(graph: tuple[Path, Path, Trial], tmp_path: Path) -> None:
    _, fused, trial = graph
    model = onnx.load(str(fused))
    before = len(model.graph.node)
    smooth(model, trial.calibration)
    sources, attention = (
        {node.input[0] for node in weighted(model.graph)},
        [node for node in model.graph.node if node.op_type == "MultiHeadAttention"],
    )
    # One product per matrix input, but none behind fused attention: there it is folded into the values.
    assert len(model.graph.node) - before == len(sources) - len(attention)
    onnx.save(model, str(tmp_path / "smooth.onnx"))
    np.testing.assert_allclose(
        runner(tmp_path / "smooth.onnx", trial)(trial.rows), runner(fused, trial)(trial.rows), atol=2e-5
    )


def test_spare_recipes_are_tried_only_where_no_other_file_is_small_enough(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        select,
        "schemes",
        lambda *given: [each for each in schemes(*given) if each.name in ("static-smooth", "per-token-smooth-4bit")],
    )
    plain, fused, trial = graph
    [only] = select_int8(plain, fused, tmp_path / "roomy" / "int8.onnx", dataclasses.replace(trial, limit=10**9), 0.5)
    assert only.chosen
    whole, fitted = select_int8(
        plain, fused, tmp_path / "tight" / "int8.onnx", dataclasses.replace(trial, limit=only.bytes - 500), 0.5
    )
    assert (whole.name, whole.chosen, whole.reason) == (
        "static-smooth",
        False,
        f"more than {(only.bytes - 500) / 1e6:g} MB",
    )
    assert fitted.name == "per-token-smooth-4bit"
    assert fitted.bytes < whole.bytes
    stored = onnx.load(str(tmp_path / "tight" / "int8.onnx"))
    assert "MatMulNBits" in {node.op_type for node in stored.graph.node}


def test_a_recipe_that_won_before_must_fit_here_too(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[1:3])
    plain, fused, trial = graph
    found = select_int8(plain, fused, tmp_path / "free" / "int8.onnx", trial, 0.5)
    small, large = sorted(found, key=lambda each: each.bytes)
    again = select_int8(
        plain,
        fused,
        tmp_path / "tight" / "int8.onnx",
        dataclasses.replace(trial, limit=small.bytes),
        0.5,
        known=large.name,
    )
    assert [each.name for each in again if each.chosen] == [small.name]


def test_where_nothing_is_small_enough_the_smallest_that_passes_is_written(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[:3])
    plain, fused, trial = graph
    candidates = select_int8(plain, fused, tmp_path / "int8.onnx", dataclasses.replace(trial, limit=1000), 0.5)
    [chosen] = [each for each in candidates if each.chosen]
    assert chosen.passed
    assert chosen.bytes == min(each.bytes for each in candidates)
    assert "nothing that passes has at most 0.001 MB" in " ".join(capsys.readouterr().err.split())


def test_bits_are_taken_where_they_are_missed_least(graph: tuple[Path, Path, Trial]) -> None:
    model = onnx.load(str(graph[1]))
    losses = product_losses(model, graph[2].calibration)
    assert set(losses) == {node.output[0] for node in weighted(model.graph)}
    assert all(0 < loss < 0.1 for loss in losses.values())
    assert to_fit(model, graph[2].calibration, 0) == set()
    few, more = (to_fit(model, graph[2].calibration, over) for over in (1, 10_000))
    assert len(few) == 1
    assert few < more
    assert to_fit(model, graph[2].calibration, 10**9) == set(losses)


def test_clipped_ranges_are_narrower(graph: tuple[Path, Path, Trial]) -> None:
    _, fused, trial = graph
    whole, clipped = (_scales(onnx.load(str(fused)), trial, share) for share in (0.0, 0.01))
    assert all(clipped[name] <= whole[name] for name in whole)
    assert any(clipped[name] < 0.99 * whole[name] for name in whole)


def _scales(model: onnx.ModelProto, trial: Trial, clipped: float) -> dict[str, float]:
    integer(model, fixed(model, trial.calibration, clipped))
    return {
        each.name: numpy_helper.to_array(each).item()
        for each in model.graph.initializer
        if each.name.endswith("_range")
    }


def test_where_none_passes_one_that_computes_in_floats_is_tried(
    graph: tuple[Path, Path, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("dynamic", "stored-128")
    monkeypatch.setattr(select, "schemes", lambda *given: [each for each in schemes(*given) if each.name in names])
    plain, fused, trial = graph
    easy, *rescues = select_int8(plain, fused, tmp_path / "easy" / "int8.onnx", trial, 0.0)
    assert bool(rescues) != easy.passed  # it may depend on the batch
    assert easy.min_cosine is not None
    first, rescue = select_int8(plain, fused, tmp_path / "hard" / "int8.onnx", trial, easy.min_cosine + 1e-6)
    assert not first.passed
    assert rescue.passed
    assert rescue.chosen
