"""Teacher capture: emb's `capture` into an empty cache, and `SentenceTransformer.encode`, on the same texts.

Each round of emb starts with an empty cache and counts everything: keys, tokenisation, encoding, and writing the
vectors to disk. Texts are cut at 128 tokens on both sides. emb computes in bf16 where the machine gains from it, as
it does by default; both are also run in the other's precision.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from common import Figure, Report, Series, interleave, model_folder, parser, ratio, sample, temporary_cache

from emb.data.corpus import Text
from emb.machine import device, resolve_dtype
from emb.model.embedding_model import load_model, open_sentence_transformer
from emb.progress import set_quiet
from emb.recipes.recipe import CaptureRecipe
from emb.similarity import cosines
from emb.teachers.capture import capture
from emb.teachers.folder import FolderTeacher
from emb.teachers.protocol import TeacherIdentity

MAX_LENGTH = CaptureRecipe().max_length
BATCH = 32
PEER = "SentenceTransformer.encode fp32, batches of 32"


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=512)
    options.add_argument("--teacher", default="all-MiniLM-L6-v2", help="model to encode with: a name or a folder")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    set_quiet(True)
    texts, folder = sample(given.texts, given.limit), model_folder(given.teacher)
    default = str(resolve_dtype("auto")).removeprefix("torch.")
    vectors: dict[str, np.ndarray] = {}
    ours = f"emb ({default}, the default)"
    contenders = {
        ours: by_emb(folder, texts, vectors, ours, default),
        PEER: by_peer(folder, texts, vectors, PEER, "float32"),
        "emb in fp32": by_emb(folder, texts, vectors, "emb in fp32", "float32"),
        "SentenceTransformer.encode bf16": by_peer(
            folder, texts, vectors, "SentenceTransformer.encode bf16", "bfloat16"
        ),
    }
    values = interleave(contenders, given.rounds)
    settings = {
        "texts": len(texts),
        "teacher": Path(given.teacher).name,
        "max_length": MAX_LENGTH,
        "threads": given.threads,
    }
    report = Report("capture", settings, [Series(name, "texts/s", found) for name, found in values.items()])
    report.figures = [
        Figure(f"{ours} / {name}", ratio(values[ours], found), 2 if name == PEER else None)
        for name, found in values.items()
        if name != ours
    ]
    for name in (name for name in values if name != PEER):
        same = cosines(vectors[name], vectors[PEER])
        report.figures += [
            Figure(f"mean cosine of {name} to the peer's fp32", float(same.mean())),
            Figure(f"min cosine of {name} to the peer's fp32", float(same.min())),
        ]
    report.write(given.out)


def by_emb(
    folder: Path, texts: Sequence[Text], vectors: dict[str, np.ndarray], name: str, dtype: str
) -> Callable[[], float]:
    """texts/s of emb's capture into an empty cache."""
    teacher = load_model(folder, dtype=getattr(torch, dtype)).to(device())
    teacher.spec = dataclasses.replace(teacher.spec, max_length=MAX_LENGTH)

    def run() -> float:
        with temporary_cache():
            started = time.perf_counter()
            found = capture(
                FolderTeacher(
                    teacher, TeacherIdentity("benchmark", MAX_LENGTH, dtype), CaptureRecipe().tokens_per_batch
                ),
                texts,
            )
            seconds = time.perf_counter() - started
            vectors[name] = found.take(range(len(texts)))
        return len(texts) / seconds

    return run


def by_peer(
    folder: Path, texts: Sequence[Text], vectors: dict[str, np.ndarray], name: str, dtype: str
) -> Callable[[], float]:
    """texts/s of `SentenceTransformer.encode`, each text behind the prompt of its kind."""
    model = open_sentence_transformer(folder, dtype=getattr(torch, dtype)).to(device())
    model.max_seq_length = MAX_LENGTH
    whole = [(model.prompts.get(item.kind) or "") + item.text for item in texts]

    def run() -> float:
        started = time.perf_counter()
        found = model.encode(whole, batch_size=BATCH, prompt="")
        seconds = time.perf_counter() - started
        vectors[name] = found.astype(np.float32)
        return len(texts) / seconds

    return run


if __name__ == "__main__":
    main()
