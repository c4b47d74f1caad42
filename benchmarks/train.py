"""Training speed: emb's loop and sentence-transformers' trainer, over the same texts.

Both train the same student (an encoder and its projection into the teacher's space) for one epoch per round,
against the same cached teacher vectors, with the cosine loss, AdamW and texts cut at 128 tokens. The peer is
`SentenceTransformerTrainer` with `EmbedDistillLoss`, set up as its documentation shows: texts and a `label` column,
batches of 32. It is also run in bf16, and in bf16 with the token table fixed, which is how emb trains; emb is also
run with the token table trained, and at all the pairs of its default recipe at once.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from common import Figure, Report, Series, interleave, model_folder, parser, ratio, sample, temporary_cache
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from transformers import TrainerCallback

from emb.artifact.fingerprints import weights_hash
from emb.artifact.manifest import LayerDimPair
from emb.data.corpus import Text
from emb.distill.projection import fit_projections
from emb.distill.train import Split, Training
from emb.files import cache_root
from emb.machine import device, resolve_dtype
from emb.model.embedding_model import EmbeddingModel, load_model, open_sentence_transformer, save_model
from emb.progress import set_quiet
from emb.recipes.recipe import TrainingRecipe
from emb.teachers.cache import TeacherCache, TeacherEmbeddings, row_key
from emb.teachers.capture import capture
from emb.teachers.folder import FolderTeacher
from emb.teachers.protocol import TeacherIdentity

MAX_LENGTH = 128
BATCH = 32
HELD_OUT = 16
PEER = "sentence-transformers fp32, batches of 32"


@dataclass(frozen=True)
class Case:
    """What every contender trains: the student, the texts with their targets, and room for files."""

    student: EmbeddingModel
    texts: Sequence[Text]
    targets: TeacherEmbeddings
    scratch: Path


class Stopwatch(TrainerCallback):
    """Seconds from the first step to the last: what the trainer prepares before is not counted."""

    seconds = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.started


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=1024)
    options.add_argument("--student", default="all-MiniLM-L6-v2", help="encoder to start from: a name or a folder")
    options.add_argument(
        "--teacher", help="model whose vectors are the targets; without it, random ones of 768 dims, which take as long"
    )
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    set_quiet(True)
    texts = sample(given.texts, given.limit + HELD_OUT)
    with temporary_cache(), tempfile.TemporaryDirectory() as scratch:
        targets = teacher_targets(given.teacher, texts)
        student = start(given.student, texts, targets)
        values = interleave(contenders(Case(student, texts, targets, Path(scratch))), given.rounds)
    settings = {
        "texts": len(texts) - HELD_OUT,
        "tokens": sum(len(row) for row in rows_of(student, texts)),
        "max_length": MAX_LENGTH,
        "threads": given.threads,
        "student": Path(given.student).name,
        "teacher": Path(given.teacher).name if given.teacher else "random targets",
        "pair": f"{student.layers}x{targets.dim}",
    }
    report = Report("train", settings, [Series(name, "texts/s", found) for name, found in values.items()])
    ours, *_ = values
    report.figures = [
        Figure(f"{ours} / {name}", ratio(values[ours], found), 3 if name == PEER else None)
        for name, found in values.items()
        if name != ours
    ]
    report.write(given.out)


def teacher_targets(teacher: str | None, texts: Sequence[Text]) -> TeacherEmbeddings:
    """Vectors in the teacher cache: the teacher's, or random unit vectors in their place."""
    if teacher:
        folder = model_folder(teacher)
        dtype = resolve_dtype("auto")
        model = load_model(folder, dtype=dtype).to(device())
        model.spec = dataclasses.replace(model.spec, max_length=MAX_LENGTH)
        return capture(FolderTeacher(model, TeacherIdentity(weights_hash(folder), MAX_LENGTH, str(dtype))), texts)
    cache, keys = TeacherCache(cache_root() / "random", 768), [row_key("", item.text) for item in texts]
    vectors = np.random.default_rng(0).standard_normal((len(keys), 768))
    cache.append(keys, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return cache.view(keys)


def start(name: str, texts: Sequence[Text], targets: TeacherEmbeddings) -> EmbeddingModel:
    """The student both train, with projections at the exits of the default recipe."""
    student = load_model(model_folder(name))
    student.spec = dataclasses.replace(student.spec, max_length=MAX_LENGTH, normalize=True)
    exits = sorted({pair.layers for pair in default_pairs(student.layers, targets.dim)})
    fit_projections(student.to(device()), rows_of(student, texts), targets, exits, ridge=1e-3, tokens_per_batch=1024)
    return student


def default_pairs(layers: int, dim: int) -> list[LayerDimPair]:
    """Half, two thirds and all of the layers, each at four dims."""
    return [
        LayerDimPair(n, d)
        for n in sorted({-(-layers // 2), -(-2 * layers // 3), layers})
        for d in sorted({128, 256, dim // 2, dim})
    ]


def rows_of(student: EmbeddingModel, texts: Sequence[Text]) -> list[Any]:
    """Token ids of each text."""
    return student.tokenizer().encode([item.text for item in texts])


def contenders(case: Case) -> dict[str, Callable[[], float]]:
    """Each trains one epoch and returns texts/s; the student starts anew each time."""
    pairs = default_pairs(case.student.layers, case.targets.dim)
    return {
        "emb": emb_epoch(case, pairs[-1:]),
        PEER: peer_epoch(case),
        "sentence-transformers bf16": peer_epoch(case, bf16=True),
        "sentence-transformers bf16, token table fixed": peer_epoch(case, bf16=True, fixed_table=True),
        "emb, token table trained": emb_epoch(case, pairs[-1:], train_token_embeddings=True),
        f"emb, {len(pairs)} pairs at once": emb_epoch(case, pairs),
    }


def emb_epoch(
    case: Case, pairs: Sequence[LayerDimPair], *, train_token_embeddings: bool = False
) -> Callable[[], float]:
    """emb's own `Training` with the recipe's defaults, its two evaluations on 16 texts included."""
    rows, targets = rows_of(case.student, case.texts), case.targets
    train, held_out = (
        Split(rows[part], TeacherEmbeddings(targets.shards, targets.places[part]))
        for part in (slice(HELD_OUT, None), slice(HELD_OUT))
    )
    recipe = TrainingRecipe(
        epochs=1, train_token_embeddings=train_token_embeddings, evaluate_every=10**9, checkpoint_seconds=10**9
    )

    def run() -> float:
        # Precision is a fact of the process in accelerate; the contenders differ in it.
        AcceleratorState._reset_state(reset_partial_state=True)
        fresh = copy.deepcopy(case.student)
        fresh.heads = torch.nn.ModuleDict({str(pair.layers): fresh.heads[str(pair.layers)] for pair in pairs})
        with tempfile.TemporaryDirectory(dir=case.scratch) as folder:
            training = Training(fresh, train, held_out, pairs, recipe, Path(folder), "benchmark")
            started = time.perf_counter()
            training.run()
        return len(train.rows) / (time.perf_counter() - started)

    return run


def peer_epoch(case: Case, *, bf16: bool = False, fixed_table: bool = False) -> Callable[[], float]:
    """sentence-transformers' trainer on the same student, saved and loaded by itself."""
    folder = case.scratch / f"student-{bf16}-{fixed_table}"
    save_model(case.student, folder)
    model = open_sentence_transformer(folder).to(device())
    model.max_seq_length = MAX_LENGTH
    model[0].auto_model.get_input_embeddings().weight.requires_grad_(not fixed_table)
    part = range(HELD_OUT, len(case.texts))
    data = Dataset.from_dict(
        {"sentence": [case.texts[index].text for index in part], "label": list(case.targets.take(part))}
    )

    def run() -> float:
        AcceleratorState._reset_state(reset_partial_state=True)
        arguments = SentenceTransformerTrainingArguments(
            str(case.scratch / "trainer"),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=2e-4,
            bf16=bf16,
            use_cpu=device().type == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        fresh, watch = copy.deepcopy(model), Stopwatch()
        SentenceTransformerTrainer(
            fresh,
            arguments,
            train_dataset=data,
            loss=EmbedDistillLoss(fresh, distance_metric="cosine"),
            callbacks=[watch],
        ).train()
        return len(part) / watch.seconds

    return run


if __name__ == "__main__":
    main()
