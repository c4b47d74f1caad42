"""The full shape of Qwen3-Embedding-0.6B with random weights: what loading, encoding and exporting cost.

    python benchmarks/qwen3_shape.py --tokenizer FOLDER [--layers 28] [--int8]

FOLDER holds a Qwen3 `tokenizer.json`. Every stage runs in a process of its own, so that its peak memory is its own.
Writes benchmarks/results/qwen3_shape.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine

RESULT = Path(__file__).parent / "results" / "qwen3_shape.json"
TEXTS = [f"a text about the {number}th thing that a search engine is asked for" for number in range(64)]


def build(folder: Path, tokenizer: Path, layers: int) -> None:
    """Write the published layout with random weights."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

    from emb.artifact.layout import write_sentence_transformers

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151_669,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32768,
        rope_theta=1_000_000,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    Qwen3Model(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    spec = {
        "pooling": "lasttoken",
        "normalize": True,
        "max_length": 512,
        "prompts": {"query": "Instruct: find passages\nQuery:", "document": ""},
    }
    write_sentence_transformers(folder, spec, 1024, [])


def encode(folder: Path) -> dict[str, Any]:
    """Load in the precision that capture takes here, and encode."""
    from emb.machine import resolve_dtype
    from emb.model.embedding_model import load_model

    model = load_model(folder, dtype=resolve_dtype("auto"))
    rows = model.tokenizer().encode(TEXTS)
    began = time.perf_counter()
    count = sum(len(batch) for batch, _ in model.embed_ids(rows))
    return {
        "texts_per_second": count / (time.perf_counter() - began),
        "tokens_per_second": sum(map(len, rows)) / (time.perf_counter() - began),
    }


def export(folder: Path, out: Path, int8: bool) -> dict[str, Any]:
    """Export the whole model; sizes in MB."""
    from emb.export import export as run

    [artifact] = run(folder, int8=int8, out=out)
    return {
        "files_mb": {
            path.relative_to(artifact).as_posix(): round(path.stat().st_size / 1e6)
            for path in sorted(artifact.rglob("*.onnx*"))
        }
    }


def measured(stage: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run a stage in a process of its own; its seconds, peak memory in GB, and what it returned."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_stage, args=(send, stage, arguments))
    process.start()
    result: dict[str, Any] = receive.recv()
    process.join()
    return result


def _stage(send: Any, stage: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    began = time.perf_counter()
    try:
        result = stage(*arguments) or {}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    send.send({"seconds": round(time.perf_counter() - began, 1), "peak_gb": round(peak, 2), **result})


def main() -> None:
    """Run the stages in order and write what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--int8", action="store_true", help="also choose 8-bit weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "qwen3"
        report = {"layers": options.layers, "build": measured(build, folder, options.tokenizer, options.layers)}
        report["encode"] = measured(encode, folder)
        report["export"] = measured(export, folder, Path(place) / "export", options.int8)
        shutil.rmtree(folder)
    report["machine"] = machine()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
