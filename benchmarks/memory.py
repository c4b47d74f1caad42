"""Peak memory of distilling a large corpus, beyond the model.

A child process goes the way of `emb distill` with the real code: read and deduplicate the corpus, split it, capture
every text's vector into an empty cache, build and tokenise for the student, fit the projections, train for some
steps. Only the teacher is not a model: it returns random vectors, so that half a million texts take minutes instead
of hours; everything around it is as it is. The child reads its resident set right after loading the student, and
its peak after each stage.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import Figure, Report, model_folder, parser, temporary_cache

TEACHER_DIM = 768


def main() -> None:
    """Run the child, print, and write the JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument(
        "--texts",
        metavar="FILE",
        nargs="+",
        help="what `emb distill --data` takes; without it, the Python documentation on this machine",
    )
    options.add_argument("--student", default="all-MiniLM-L6-v2", help="encoder to start from: a name or a folder")
    options.add_argument("--steps", type=int, default=50, help="steps of training")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(distil(given.texts or [], given.student, given.steps, given.threads)))
        return
    done = subprocess.run(
        [sys.executable, __file__, "--child", *sys.argv[1:]], check=True, stdout=subprocess.PIPE, text=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    settings = {"student": Path(given.student).name, "steps": given.steps, "threads": given.threads}
    report = Report("memory", settings | {key: told[key] for key in ("texts", "tokens", "stages")})
    report.figures = [
        Figure(f"peak after: {stage['stage']}, GB beyond the model", stage["peak_gb"] - told["model_gb"])
        for stage in told["stages"][:-1]
    ]
    report.figures += [Figure("process with the student loaded, GB", told["model_gb"])]
    report.figures += [
        Figure(
            f"peak of distilling {told['texts']:,} texts, GB beyond the model",
            told["stages"][-1]["peak_gb"] - told["model_gb"],
            4,
            at_most=True,
        )
    ]
    report.write(given.out)


def distil(sources: Sequence[str], name: str, steps: int, threads: int) -> dict[str, Any]:
    """The stages of a distillation, and the peak of this process after each."""
    import torch

    from emb.data.corpus import read_corpus, split
    from emb.data.default_corpus import default_corpus
    from emb.model.embedding_model import load_model

    torch.set_num_threads(threads)
    student = load_model(model_folder(name))
    student.spec = dataclasses.replace(student.spec, max_length=128)
    model_gb, stages = resident_gb(), Stages()
    corpus = read_corpus(sources) if sources else default_corpus()
    train, held_out = split(corpus, 1000)
    stages.done("corpus")
    with temporary_cache():
        targets = random_targets(student, [*train.texts, *held_out.texts])
        stages.done("teacher vectors")
        tokens = train_student(student, train.texts, held_out.texts, targets, steps, stages)
    return {"texts": len(corpus), "tokens": tokens, "model_gb": model_gb, "stages": stages.found}


def random_targets(student: Any, texts: Sequence[Any]) -> Any:
    """emb's capture, with a teacher that has the student's tokenizer and returns random vectors."""
    from emb.model.embedding_model import EmbeddingModel
    from emb.teachers.capture import capture
    from emb.teachers.folder import FolderTeacher
    from emb.teachers.protocol import TeacherIdentity
    from emb.tokens import token_budget_batches

    class RandomTeacher(EmbeddingModel):
        @property
        def dim(self) -> int:
            return TEACHER_DIM

        def embed_ids(
            self, rows: Sequence[Any], *args: Any, tokens_per_batch: int = 512, **kwargs: Any
        ) -> Iterator[tuple[Any, Any]]:
            import torch

            for batch in token_budget_batches([len(row) for row in rows], tokens_per_batch):
                yield batch, torch.nn.functional.normalize(torch.randn(len(batch), TEACHER_DIM), dim=-1)

    teacher = RandomTeacher(student.encoder, student.hf_tokenizer, student.spec)
    return capture(FolderTeacher(teacher, TeacherIdentity("random", 128, "float32")), texts)


def train_student(
    student: Any, train: Sequence[Any], held_out: Sequence[Any], targets: Any, steps: int, stages: Stages
) -> int:
    """Tokenise, fit the projections and train, as `emb distill` does; returns the number of tokens."""
    import tempfile

    import torch

    from emb.artifact.manifest import LayerDimPair
    from emb.distill.projection import fit_projections
    from emb.distill.train import Split, Training
    from emb.recipes.recipe import ProjectionRecipe, TrainingRecipe
    from emb.teachers.cache import TeacherEmbeddings

    places = targets.places[: len(train)], targets.places[len(train) :]
    rows = [student.tokenizer().encode([item.text for item in part], [""] * len(part)) for part in (train, held_out)]
    first, second = (
        Split(ids, TeacherEmbeddings(targets.shards, place)) for ids, place in zip(rows, places, strict=True)
    )
    stages.done("tokens")
    chosen = torch.randperm(len(train))[: ProjectionRecipe().texts].tolist()
    sample = TeacherEmbeddings(targets.shards, places[0][chosen])
    pairs = [
        LayerDimPair(layers, dim)
        for layers in sorted({-(-student.layers // 2), student.layers})
        for dim in (128, 256, 384, 768)
    ]
    fit_projections(
        student,
        [first.rows[i] for i in chosen],
        sample,
        sorted({pair.layers for pair in pairs}),
        ridge=1e-3,
        tokens_per_batch=1024,
    )
    stages.done("projections")
    with tempfile.TemporaryDirectory() as folder:
        Training(student, first, second, pairs, TrainingRecipe(max_steps=steps), Path(folder), "benchmark").run()
    stages.done("training")
    return sum(len(row) for row in first.rows)


class Stages:
    """Peak memory and seconds, stage by stage."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def done(self, stage: str) -> None:
        """A stage has ended."""
        record = {
            "stage": stage,
            "peak_gb": peak_gb(),
            "resident_gb": resident_gb(),
            "seconds": time.monotonic() - self.started,
        }
        print(
            f"{stage}: peak {record['peak_gb']:.2f} GB, resident {record['resident_gb']:.2f} GB,"
            f" {record['seconds']:.0f} s",
            file=sys.stderr,
        )
        self.found.append(record)


def peak_gb() -> float:
    """Largest resident set of this process so far, pages of memory-mapped files included."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss also remembers the process that started this one
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            * 1024
            / 1e9
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def resident_gb() -> float:
    """Resident set of this process now (its peak, where the system does not tell)."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9 if status.is_file() else peak_gb()


if __name__ == "__main__":
    main()
