"""The page's script for encoders with layers, run by node on a stand-in for onnxruntime-web."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_packaging import ROOT

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]
# The output that is wanted begins with the token ids; whatever else was given is told.
RUNTIME = """
export const env = { wasm: {} };
export class Tensor {
  constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
}
export const InferenceSession = {
  create: async (model, options) => ({
    outputNames: NAMES,
    run: async (feeds, [name]) => {
      const list = ([key, { type, data, dims }]) => [key, type, Array.from(data, Number), dims];
      const told = Object.entries(feeds).map(list);
      globalThis.told = { name, told, threads: env.wasm.numThreads, binary: env.wasm.wasmBinary };
      return { [name]: { data: Float32Array.from([...feeds.input_ids.data].map(Number).concat(9, 9)) } };
    },
  }),
};
"""
ASK = """
import { openEncoder } from "./layers.js";
const [page, tried, ids] = JSON.parse(process.argv[1]);
const tokenizer = { ids: (text) => text.split(" ").map(Number) };
const files = { encoder: { tried }, model: new ArrayBuffer(8), runtime: "wasm" };
try {
  const encoder = await openEncoder(page, files, tokenizer);
  const vector = Array.from(await encoder.encode(ids));
  console.log(JSON.stringify({ vector, ...globalThis.told }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message }));
}
"""


def asked(place: Path, tried: list[Any], *, normalize: bool = True, names: tuple[str, ...] = ("a", "b")) -> Any:
    """What the script gives of the ids 3 and 4, and what it gave to the runtime; or the error."""
    place.mkdir(exist_ok=True)
    shutil.copy(ROOT / "search" / "web" / "page" / "layers.js", place)
    (place / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (place / "onnxruntime.js").write_text(RUNTIME.replace("NAMES", json.dumps(names)), encoding="utf-8")
    given = json.dumps([{"dim": 2, "normalize": normalize}, tried, [3, 4]])
    command = ["node", "--input-type=module", "--eval", ASK, given]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("normalize", "vector"), [(True, [0.6, 0.8]), (False, [3, 4])])
def test_its_vectors_are_cut_and_as_long_as_pythons(normalize: bool, vector: list[float], tmp_path: Path) -> None:
    assert asked(tmp_path, [], normalize=normalize)["vector"] == pytest.approx(vector)


def test_the_runtime_gets_ids_and_a_mask_of_ones(tmp_path: Path) -> None:
    told = asked(tmp_path, [])
    assert told["told"] == [["input_ids", "int64", [3, 4], [1, 2]], ["attention_mask", "int64", [1, 1], [1, 2]]]
    assert (told["threads"], told["binary"]) == (1, "wasm")  # node shares memory with nobody


@pytest.mark.parametrize(
    ("names", "wanted"), [(("token_embeddings", "sentence_embedding"), "sentence_embedding"), (("a", "b"), "a")]
)
def test_the_vector_of_the_whole_text_is_taken(names: tuple[str, ...], wanted: str, tmp_path: Path) -> None:
    assert asked(tmp_path, [], names=names)["name"] == wanted


@pytest.mark.parametrize(
    ("tried", "said"),
    [
        ([["3 4", [6, 8]], ["1 2", [1, 2]]], None),  # of any length
        ([["3 4", [3, 4]], ["1 2", [2, -1]]], "0.000"),
        ([["3 4", [3, 3]]], "0.990"),
        ([["3 4", [0, 0]]], "NaN"),
    ],
)
def test_it_answers_only_if_it_computes_what_python_does(tried: list[Any], said: str | None, tmp_path: Path) -> None:
    found = asked(tmp_path, tried)
    if said is None:
        assert found["vector"] == pytest.approx([0.6, 0.8])
    else:
        assert found["error"] == f"this browser computes other vectors than the model's own (cosine {said})"
