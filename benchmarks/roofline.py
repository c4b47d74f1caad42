"""How near encoding comes to what this machine multiplies: one batch of 32 texts of 128 tokens.

The rate of the machine is that of onnxruntime's own int8 product (and torch's in bf16) on the model's shapes, the
same tokens, the same threads: nothing but matrix products, data in place. The rate of encoding is the model's
products over the time of the whole batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from common import Figure, Report, Series, interleave, parser, ratio
from onnx import TensorProto, helper, numpy_helper

from emb.artifact.manifest import Manifest
from emb.quantize.weights.surgery import tensors
from emb.runtime.sessions import Runner, open_session

BATCH, TOKENS = 32, 128


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=None)
    options.add_argument("--artifact", type=Path, required=True, help="export with an int8 file")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    manifest = Manifest.load(given.artifact)
    file = next(variant.file for variant in manifest.variants if variant.weight_dtype == "int8")
    shapes = matrices(given.artifact / "onnx/model.onnx")
    products = sum(inputs * outputs for inputs, outputs in shapes) * BATCH * TOKENS
    attention = 2 * manifest.layers * BATCH * TOKENS * TOKENS * max(min(shape) for shape in shapes)
    contenders = {
        "emb int8": rate(encoding(given.artifact / file, given.threads), products + attention),
        "onnxruntime, int8 products alone": rate(integer_products(shapes, given.threads), products),
        "torch, bf16 products alone": rate(bf16_products(shapes), products),
    }
    found = interleave(contenders, given.rounds)
    report = Report(
        "roofline",
        {
            "batch": BATCH,
            "tokens": TOKENS,
            "threads": given.threads,
            "gmac": (products + attention) / 1e9,
            "artifact": given.artifact.name,
        },
    )
    report.series = [Series(name, "GMAC/s", values) for name, values in found.items()]
    best = max(list(found)[1:], key=lambda name: np.median(found[name]))
    report.figures = [Figure(f"emb int8 / {best}", ratio(found["emb int8"], found[best]), 0.6)]
    report.write(given.out)


def matrices(graph: Path) -> list[tuple[int, int]]:
    """Inputs and outputs of every matrix that a token is multiplied with."""
    model = onnx.load(str(graph))
    constant = tensors(model.graph)
    found = [
        constant[node.input[1]].dims
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in constant
    ]
    return [(int(dims[0]), int(dims[1])) for dims in found[:-1]]  # the last is the projection: of texts, not tokens


def rate(run: Callable[[], object], products: float) -> Callable[[], float]:
    """10⁹ multiply-adds per second of `run`, which does `products` of them."""

    def measure() -> float:
        began = time.perf_counter()
        run()
        return products / (time.perf_counter() - began) / 1e9

    return measure


def encoding(file: Path, threads: int) -> Callable[[], object]:
    """The whole batch as emb serves it: parts of 512 tokens side by side."""
    runner = Runner(file, threads)
    ids = np.random.default_rng(0).integers(1000, 2000, (BATCH, TOKENS))
    parts = [(part, np.ones_like(part)) for part in np.split(ids, BATCH // 4)]
    return lambda: list(runner.run_each([lambda part=part: part for part in parts]))  # type: ignore[misc]


def integer_products(shapes: Sequence[tuple[int, int]], threads: int) -> Callable[[], object]:
    """Every matrix of the model in one graph, int8, each on tokens of its own that stay in place."""
    rng, sessions = np.random.default_rng(0), []
    for inputs, outputs in sorted(set(shapes)):
        weight = numpy_helper.from_array(rng.integers(-127, 128, (inputs, outputs)).astype(np.int8), "w")
        node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
        given = helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", inputs])
        out = helper.make_tensor_value_info("y", TensorProto.INT32, ["n", outputs])
        model = helper.make_model(
            helper.make_graph([node], "product", [given], [out], [weight]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        values = rng.integers(0, 256, (BATCH * TOKENS, inputs)).astype(np.uint8)
        sessions += [(open_session(model.SerializeToString(), threads), values)] * list(shapes).count((inputs, outputs))
    return lambda: [session.run(None, {"x": values}) for session, values in sessions]


def bf16_products(shapes: Sequence[tuple[int, int]]) -> Callable[[], object]:
    """The same by torch in bf16."""
    pairs = [
        (torch.randn(BATCH * TOKENS, inputs).bfloat16(), torch.randn(inputs, outputs).bfloat16())
        for inputs, outputs in shapes
    ]

    def run() -> None:
        with torch.inference_mode():
            for values, weight in pairs:
                values @ weight

    return run


if __name__ == "__main__":
    main()
