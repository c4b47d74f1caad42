"""Peak memory and final loss of training an adapter on a base in 4 bits and on one in float32.

A random model in the shape of Qwen3-Embedding-0.6B, with a small vocabulary, is written once. Plain LoRA and QLoRA
then train on the same texts, seed and steps, each in a process of its own with the code of the language stage:
loading counts, merging does not (the merged model is in float32 whichever way it was trained). Both recompute
activations. A third process loads the libraries alone, for what is beyond them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Figure, Report, parser
from memory import peak_gb

VOCABULARY, DIM, TEXTS = 2048, 1024, 96


def main() -> None:
    """Write the model, run the three processes, print, and write the JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("--layers", type=int, default=28, help="each of 15.7 million parameters")
    options.add_argument("--steps", type=int, default=4, help="steps of training")
    options.add_argument("--tokens", type=int, default=128, help="tokens per batch")
    options.add_argument("--child", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        kind, folder = given.child
        print(json.dumps(STAGES[kind](Path(folder), given)))
        return
    with tempfile.TemporaryDirectory() as place:
        parameters = child("build", place)["parameters"]
        found = {kind: child(kind, place) for kind in ("imports", "lora", "qlora")}
    report = Report("qlora_memory", {"parameters": parameters, **{k: getattr(given, k) for k in ("layers", "steps")}})
    report.settings |= {"tokens_per_batch": given.tokens, "threads": given.threads}
    report.rows = [{"kind": kind, **facts} for kind, facts in found.items()]
    report.figures = figures(found)
    report.write(given.out)


def child(kind: str, place: str) -> dict[str, Any]:
    """What a process of this file prints as `kind`."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", kind, place]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind}: {told}", file=sys.stderr)
    return told


def figures(found: dict[str, dict[str, Any]]) -> list[Figure]:
    """The ratios to reach, and those beyond what the libraries take."""
    plain, four, alone = (found[kind] for kind in ("lora", "qlora", "imports"))
    beyond = [each["peak_gb"] - alone["peak_gb"] for each in (four, plain)]
    away = abs(four["loss"] / plain["loss"] - 1)
    rows = [
        Figure("peak of QLoRA / of LoRA", four["peak_gb"] / plain["peak_gb"], 0.45, at_most=True),
        Figure("the same beyond the libraries", beyond[0] / beyond[1]),
        Figure("final loss of QLoRA, relative distance from LoRA's", away, 0.02, at_most=True),
        Figure("seconds of QLoRA / of LoRA", four["seconds"] / plain["seconds"]),
    ]
    if plain["cuda_gb"]:
        rows.append(Figure("CUDA peak of QLoRA / of LoRA", four["cuda_gb"] / plain["cuda_gb"], 0.45, at_most=True))
    return rows


def build(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Write the random model in float32, as this package saves one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    from emb.model.embedding_model import EmbeddingModel, ModelSpec, save_model

    torch.manual_seed(0)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", unk_token="w1", model_max_length=512)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=DIM,
        intermediate_size=3072,
        num_hidden_layers=given.layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=512,
    )
    encoder = Qwen3Model(config)
    spec = ModelSpec("mean", max_length=64)
    save_model(EmbeddingModel(encoder, wrapped, spec), folder / "model")
    return {"parameters": sum(each.numel() for each in encoder.parameters())}


def imports(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The peak of a process that has loaded what both trainings use."""
    import emb.vocabulary.adaptation.language_stage  # noqa: F401
    from emb.vocabulary.adaptation.extra import adapt_extra

    with adapt_extra():
        for library in ("bitsandbytes", "peft", "sentence_transformers"):
            importlib.import_module(library)
    return {"peak_gb": peak_gb()}


def trained(folder: Path, given: argparse.Namespace, *, qlora: bool) -> dict[str, Any]:
    """Train an adapter; the peak, the seconds, and the mean loss of the last steps."""
    import torch

    from emb.artifact.manifest import LayerDimPair
    from emb.recipes.recipe import TrainingRecipe
    from emb.vocabulary.adaptation.language_stage import train_adapter

    torch.set_num_threads(given.threads)
    train, held_out = splits(TEXTS), splits(12)
    recipe = TrainingRecipe(
        epochs=1000,
        max_steps=given.steps,
        tokens_per_batch=given.tokens,
        lr=1e-3,
        warmup_steps=0,
        precision="fp32",
        checkpoint_seconds=1e6,
        evaluate_every=10**6,
    )
    out, began = folder / ("qlora" if qlora else "lora"), time.monotonic()
    new = list(range(VOCABULARY - 64, VOCABULARY))
    pairs = [LayerDimPair(given.layers, DIM)]
    _, memory = train_adapter(folder / "model", new, train, held_out, pairs, recipe, out, qlora=qlora, recompute=True)
    [state] = (out / "checkpoints").glob("*/state.json")
    losses = json.loads(state.read_text(encoding="utf-8"))["losses"]
    return {
        "peak_gb": peak_gb(),
        "cuda_gb": memory.device_peak / 1e9,
        "seconds": time.monotonic() - began,
        "loss": losses[-1],
        "losses": losses,
        "linear_gb": memory.linear / 1e9,
    }


def splits(count: int) -> Any:
    """Texts of random words, and random unit vectors that depend on the first of them: something can be learned."""
    import numpy as np

    from emb.distill.train import Split
    from emb.similarity import unit
    from emb.teachers.cache import in_memory

    draw, subjects = random.Random(count), np.random.default_rng(0).normal(size=(4, DIM))
    rows = [[draw.randrange(2, VOCABULARY) for _ in range(draw.randint(8, 24))] for _ in range(count)]
    ids = [np.asarray(row, np.int32) for row in rows]
    return Split(ids, in_memory(unit(np.stack([subjects[row[0] % 4] for row in rows])).astype(np.float32)))


STAGES = {
    "build": build,
    "imports": imports,
    "lora": lambda folder, given: trained(folder, given, qlora=False),
    "qlora": lambda folder, given: trained(folder, given, qlora=True),
}


if __name__ == "__main__":
    main()
