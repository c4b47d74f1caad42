"""How well vectors search and compare: nDCG@10 and Spearman, per layers × dim × precision.

Three questions are asked of a student at once: how good it is on both sides (symmetric), how good its queries are
against the teacher's documents (asymmetric), and how good the teacher is when its own vectors are cut to the same
dims. Each also of documents stored as codes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emb.data.evaluation_sets import RetrievalTask, Task, read_tasks
from emb.errors import UsageError
from emb.evaluate.scores import Evaluation, Output, Score
from emb.evaluate.storage import Storage, open_storages
from emb.evaluate.subjects import Subject, open_subject, parts_of
from emb.files import atomic_path
from emb.progress import note, warn
from emb.quantize.vectors.rescoring import DEPTH
from emb.similarity import Vectors, require_finite, truncated

DIMS = (1024, 768, 512, 384, 256, 128, 64)


def evaluate(
    models: Sequence[str | Path],
    data: Sequence[str | Path],
    *,
    teacher: str | Path | None = None,
    dims: Sequence[int] = (),
    layers: Sequence[int] = (),
    dtype: str = "fp32",
    precisions: Sequence[str] = (),
    cache: Path | None = None,
    threads: int | None = None,
    codecs: Sequence[str | Path] = (),
    rescore: str | None = None,
    depth: int = DEPTH,
    split: str | None = None,
    side: str | None = None,
    verify: bool = True,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Score `models`, and `teacher` if given, on every task in `data`.

    Args:
        models: runs (their static encoders too, as 0 layers), students, exported artifacts (each ONNX file is scored)
            or other sentence-transformers folders, by path or by name.
        data: BEIR folders, STS tables, or folders of those.
        teacher: also scored itself, at each dim; its document vectors are the asymmetric index.
        dims: vectors are cut to each and re-normalised; empty stands for common sizes and the model's own.
        layers: exits to score; empty stands for all.
        dtype: "fp32", "bf16" (faster where the machine computes in bf16, inexact) or "auto", for the teacher, which
            is the slow one; all other torch models compute in fp32.
        precisions: weights of exported artifacts to score ("fp32", "fp16", "int8", "int4"); empty stands for all.
        cache: folder to keep vectors in, so that a second call does not encode again.
        threads: of ONNX Runtime; None leaves it to choose.
        codecs: folders of codecs; documents of retrieval sets are also scored as each of them stores them, with
            float queries, where vectors have a codec's dim or more.
        rescore: "float", "int8" or the folder of a codec: the codes' first `depth` are put in order by finer vectors.
        depth: how many of them.
        split: which grades of BEIR folders, `qrels/{split}.tsv`; None stands for "test".
        side: "symmetric" scores a model on both sides alone, "asymmetric" the queries of students on the documents of
            the teacher alone, so that students encode none; None stands for both.
        verify: compare the files of artifacts with the hashes that they were written with.
        trust_remote_code: let models whose folders bring code of their own run it.

    Raises:
        DataError: an evaluation set that is missing or damaged, or has no such split.
        UsageError: a dim or exit that no model has, `side` "asymmetric" without a teacher, a split without a BEIR
            folder, or a codec of more dims than any.
        ArtifactError: no codec in a folder, or an artifact that has changed since it was written.
        TeacherError: a model that cannot be found.
        NotFiniteError: a model gave NaN or infinity; the text is named.
    """
    if not models and teacher is None:
        raise UsageError("no model to evaluate", "name one or more folders, or a --teacher")
    if side == "asymmetric" and teacher is None:
        raise UsageError("--side asymmetric: no teacher to encode documents", "name it with --teacher")
    tasks, storages = read_tasks(data, split), open_storages(codecs, rescore, depth)
    how = {"verify": verify, "trust_remote_code": trust_remote_code}
    opened_teacher = open_subject(teacher, (), dtype, (), threads, **how) if teacher is not None else None
    result = Evaluation(
        teacher=opened_teacher.name if opened_teacher else None,
        fingerprints=_fingerprints(tasks, opened_teacher, storages),
    )
    indexes: dict[str, Vectors] = {}
    if opened_teacher:
        for task in tasks:
            sides = encode_sides(opened_teacher, task, cache)
            indexes[task.name] = next(iter(sides[1].values()))
            result.scores += _scores(task, opened_teacher, sides, _dims(opened_teacher.dim, dims), None, storages)
    for part, exits in (part for model in models for part in parts_of(model, layers)):
        subject = open_subject(part, exits, "fp32", precisions, threads, **how)
        asymmetric = side != "symmetric" and opened_teacher and _shares_space(subject, opened_teacher)
        for task in tasks if asymmetric or side != "asymmetric" else ():
            sides = encode_sides(subject, task, cache, documents=side != "asymmetric")
            index = indexes[task.name] if asymmetric else None
            result.scores += _scores(task, subject, sides, _dims(subject.dim, dims), index, storages)
    _require_scores(result, dims, storages)
    return result


def _fingerprints(
    tasks: Sequence[Task], teacher: Subject | None, storages: Sequence[Storage]
) -> dict[str, dict[str, str]]:
    return {
        "data": {task.name: task.fingerprint for task in tasks},
        "teacher": {teacher.name: teacher.hashes[0]} if teacher else {},
        "codecs": {storage.name: storage.codec.fingerprint for storage in storages},
    }


def _require_scores(found: Evaluation, dims: Sequence[int], storages: Sequence[Storage]) -> None:
    if not any(score.storage is None for score in found.scores):
        raise UsageError(f"dims {','.join(map(str, dims))}: no model has as many dimensions", "give smaller dims")
    for storage in storages:
        if not any(score.storage == str(storage) for score in found.scores):
            raise UsageError(
                f"--codec {storage.name}: nothing was scored with its {storage.codec.dim} dims",
                "give a model of as many dims and a retrieval set",
            )


def _shares_space(subject: Subject, teacher: Subject) -> bool:
    """Whether queries of `subject` are tried on the documents of `teacher`."""
    if not subject.in_teacher_space:
        # Vectors of a model that was not distilled can be as wide as the teacher's and mean something else.
        note(f"{subject.name}: not a student of this package, so its queries are not tried on the teacher's documents")
    elif subject.taught_by not in (None, teacher.hashes[0]):
        # Saved again in another precision it is the same model still, so this is no error.
        warn(
            f"{subject.name}: was distilled from other weights than those of {teacher.name} here; if that is another"
            " model, its asymmetric figures mean nothing"
        )
    return subject.in_teacher_space


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
    return _cached(subject, *left, cache), _cached(subject, *right, cache) if documents else {}


def _cached(subject: Subject, texts: Sequence[str], kind: str, cache: Path | None) -> dict[Output, Vectors]:
    if cache is None:
        return _finite(subject, subject.vectors(texts, kind), texts)
    path = cache / f"{_cache_key(subject, texts, kind)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:  # checked as well: an older version wrote whatever it got
            return _finite(subject, {Output(**json.loads(name)): stored[name] for name in stored.files}, texts)
    found = _finite(subject, subject.vectors(texts, kind), texts)
    arrays: dict[str, Any] = {json.dumps(dataclasses.asdict(point)): vectors for point, vectors in found.items()}
    with atomic_path(path) as partial, partial.open("wb") as handle:
        np.savez(handle, **arrays)
    return found


def _finite(subject: Subject, found: dict[Output, Vectors], texts: Sequence[str]) -> dict[Output, Vectors]:
    for point, vectors in found.items():
        require_finite(vectors, texts, f"{subject.name}, layer {point.layers}: ")
    return found


def _cache_key(subject: Subject, texts: Sequence[str], kind: str) -> str:
    content = [*subject.hashes, repr(subject), kind, *texts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
