"""The scores of one model after the other, on sets in files and on mteb's tasks, on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from emb.data.evaluation_sets import RetrievalTask, Task
from emb.evaluate.encoding import encoded
from emb.evaluate.mteb_models import Facts
from emb.evaluate.mteb_results import ResultFolder
from emb.evaluate.mteb_tasks import MtebTask, Vectorised, run_task
from emb.evaluate.scores import Evaluation, Output, Score
from emb.evaluate.storage import Storage
from emb.evaluate.subjects import Subject, warn_of_other_teacher
from emb.progress import note
from emb.similarity import Vectors, truncated

DIMS = (1024, 768, 512, 384, 256, 128, 64)


@dataclass
class Scoring:
    """What models are scored on, and what was found; `add` scores one more. The teacher is the first.

    `theirs` are tasks of mteb with their data, `results` where scores are written for mteb, `split` what they are
    called there.
    """

    sets: Sequence[Task]
    theirs: Sequence[MtebTask]
    storages: Sequence[Storage]
    dims: Sequence[int]
    side: str | None
    cache: Path | None
    teacher: Subject | None
    results: ResultFolder | None
    split: str
    found: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        self._indexes: dict[str, Vectors] = {}
        self._their_indexes: dict[str, Vectorised] = {}
        self.found.fingerprints = self._fingerprints()
        if self.teacher:
            self.found.teacher = self.teacher.name
            self._add_teacher(self.teacher)

    def add(self, subject: Subject) -> None:
        """Score a model on both sides, or on the one that is asked for."""
        asymmetric = bool(self.side != "symmetric" and self.teacher and _shares_space(subject, self.teacher))
        if not asymmetric and self.side == "asymmetric":
            return
        for task in self.sets:
            sides = encode_sides(subject, task, self.cache, documents=self.side != "asymmetric")
            self._keep(task, subject, sides, self._indexes[task.name] if asymmetric else None)
        for their in self.theirs:
            queries = Vectorised(subject, self.cache)
            if self.side != "asymmetric":
                self._run(their, queries, None)
            if asymmetric and their.is_search:
                self._run(their, queries, self._their_indexes[their.name])
            elif asymmetric:
                note(f"{their.name}: has no queries and documents, so {subject.name} is not tried on another's")

    def _add_teacher(self, teacher: Subject) -> None:
        for task in self.sets:
            sides = encode_sides(teacher, task, self.cache)
            self._indexes[task.name] = next(iter(sides[1].values()))
            self._keep(task, teacher, sides, None)
        for their in self.theirs:
            self._their_indexes[their.name] = Vectorised(teacher, self.cache)
            self._run(their, self._their_indexes[their.name], None)

    def _keep(
        self,
        task: Task,
        subject: Subject,
        sides: tuple[dict[Output, Vectors], dict[Output, Vectors]],
        index: Vectors | None,
    ) -> None:
        scores = list(_scores(task, subject, sides, _dims(subject.dim, self.dims), index, self.storages))
        self.found.scores += scores
        if self.results:
            for _, metrics in groupby(scores, key=lambda score: (score.layers, score.dim, score.precision, score.side)):
                of_one = list(metrics)
                self.results.of_files(of_one, self.split, task.fingerprint, self._facts(subject, of_one[0]))

    def _run(self, task: MtebTask, queries: Vectorised, documents: Vectorised | None) -> None:
        """Score every output and dim of a model on a task of mteb."""
        subject = queries.subject
        note(f"{subject.name}: {task.name}")
        for point in subject.points:
            widest = min(subject.dim, documents.subject.dim) if documents else subject.dim
            for dim in (dim for dim in _dims(subject.dim, self.dims) if dim <= widest):
                score = Score(
                    task.name,
                    task.metric,
                    subject.name,
                    point.layers,
                    dim,
                    point.weights,
                    point.vectors,
                    "asymmetric" if documents else "symmetric",
                    0.0,
                    fingerprint=subject.fingerprint(point),
                )
                result = run_task(task, queries, documents, point, dim, self._facts(subject, score))
                self.found.scores.append(replace(score, value=100 * float(result.get_score())))
                if self.results:
                    self.results.of_task(result, self._facts(subject, score))

    def _facts(self, subject: Subject, score: Score) -> Facts:
        """What mteb's files say of a model at one output and dim, with its documents' encoder and storage."""
        name, revision = f"{score.model}-{score.layers}x{score.dim}", (score.fingerprint or "")[:12]
        if score.precision != "fp32":
            name += f"-{score.precision}"
        teacher = None
        if score.side == "asymmetric" and self.teacher:
            teacher = self.teacher.name
            name, revision = f"{name}-on-{teacher}", f"{revision}-{self.teacher.hashes[0][:12]}"
        return Facts(
            name,
            revision,
            score.dim,
            subject.max_length,
            subject.similarity,
            subject.framework,
            any(subject.prompts.values()),
            teacher,
        )

    def _fingerprints(self) -> dict[str, dict[str, str]]:
        return {
            "data": {task.name: task.fingerprint for task in [*self.sets, *self.theirs]},
            "teacher": {self.teacher.name: self.teacher.hashes[0]} if self.teacher else {},
            "codecs": {storage.name: storage.codec.fingerprint for storage in self.storages},
        }


def _shares_space(subject: Subject, teacher: Subject) -> bool:
    """Whether queries of `subject` are tried on the documents of `teacher`."""
    if not subject.in_teacher_space:
        # Vectors of a model that was not distilled can be as wide as the teacher's and mean something else.
        note(f"{subject.name}: not a student of this package, so its queries are not tried on the teacher's documents")
        return False
    warn_of_other_teacher(subject.name, subject.taught_by, teacher.name, teacher.hashes[0])
    return True


def _dims(own: int, asked: Sequence[int]) -> list[int]:
    return sorted({dim for dim in asked or (*DIMS, own) if dim <= own}, reverse=True)


def _scores(
    task: Task,
    subject: Subject,
    sides: tuple[dict[Output, Vectors], dict[Output, Vectors]],
    dims: Sequence[int],
    index: Vectors | None,
    storages: Sequence[Storage],
) -> Iterable[Score]:
    left, right = sides
    for point in left:
        ways = [
            *((dim, None) for dim in dims),
            *(
                (storage.codec.dim, storage)
                for storage in storages
                if point.vectors == "float32" and isinstance(task, RetrievalTask)
            ),
        ]
        for dim, storage in ((dim, storage) for dim, storage in ways if dim <= left[point].shape[1]):
            documents = ({"symmetric": right[point]} if right else {}) | (
                {"asymmetric": index} if index is not None and dim <= index.shape[1] else {}
            )
            for side, vectors in documents.items():
                stored = str(storage) if storage else None
                found = _figures(task, left[point], vectors, dim, storage, subject.similarity)
                yield from (
                    Score(
                        task.name,
                        metric,
                        subject.name,
                        point.layers,
                        dim,
                        point.weights,
                        point.vectors,
                        side,
                        value,
                        stored,
                        subject.fingerprint(point),
                    )
                    for metric, value in found.items()
                )


def _figures(
    task: Task, queries: Vectors, documents: Vectors, dim: int, storage: Storage | None, similarity: str
) -> dict[str, float]:
    if storage is not None and isinstance(task, RetrievalTask):
        return {task.metric: storage.score(task, truncated(queries, dim), truncated(documents, dim))}
    if similarity == "cosine":
        return task.figures(truncated(queries, dim), truncated(documents, dim))
    return task.figures(queries[:, :dim], documents[:, :dim], similarity)  # length counts


def encode_sides(
    subject: Subject, task: Task, cache: Path | None, *, documents: bool = True
) -> tuple[dict[Output, Vectors], dict[Output, Vectors]]:
    """Vectors of a task's two sides, at each output of `subject`; from `cache` where they are there.

    Without `documents` there are none of the second side.
    """
    note(f"{subject.name}: {task.name}")
    left, right = zip(task.sides, task.kinds, strict=True)
    return encoded(subject, *left, cache), encoded(subject, *right, cache) if documents else {}
