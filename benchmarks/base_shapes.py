"""Encoders of base size with random weights: what loading, encoding and exporting cost.

    python benchmarks/base_shapes.py --tokenizer FOLDER [--shape NAME…] [--int8]

FOLDER holds any `tokenizer.json` whose ids fit. Every stage runs in a process of its own, so that its peak memory
is its own. Writes benchmarks/results/base_shapes.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import qwen3_shape
from common import machine

RESULT = Path(__file__).parent / "results" / "base_shapes.json"
# As in the published config.json of xlm-roberta-base and ModernBERT-base, where transformers has other defaults.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta-base": (
        "XLMRoberta",
        {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
    "modernbert-base": ("ModernBert", {"vocab_size": 50_368}),
}


def build(folder: Path, tokenizer: Path, shape: str) -> None:
    """Write the published layout with random weights."""
    import torch
    import transformers

    from emb.artifact.layout import write_sentence_transformers

    torch.manual_seed(0)
    kind, values = SHAPES[shape]
    words = transformers.AutoTokenizer.from_pretrained(tokenizer)
    config = getattr(transformers, f"{kind}Config")(**values, pad_token_id=words.pad_token_id)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    words.save_pretrained(folder)
    write_sentence_transformers(
        folder, {"pooling": "mean", "normalize": True, "max_length": 512, "prompts": {}}, config.hidden_size, []
    )


def measure(shape: str, tokenizer: Path, int8: bool) -> dict[str, Any]:
    """The stages of one shape, each with its seconds and peak memory in GB."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / shape
        report = {
            "build": qwen3_shape.measured(build, folder, tokenizer, shape),
            "encode": qwen3_shape.measured(qwen3_shape.encode, folder),
        }
        return report | {"export": qwen3_shape.measured(qwen3_shape.export, folder, Path(place) / "export", int8)}


def main() -> None:
    """Measure each shape and write what it costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, nargs="*", default=list(SHAPES))
    parser.add_argument("--int8", action="store_true", help="also choose 8-bit weights")
    options = parser.parse_args()
    report = {shape: measure(shape, options.tokenizer, options.int8) for shape in options.shape}
    report["machine"] = machine()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
