"""How well vectors search and compare: nDCG@10 and Spearman, per layers × dim × precision.

Three questions are asked of a student at once: how good it is on both sides (symmetric), how good its queries are
against the teacher's documents (asymmetric), and how good the teacher is when its own vectors are cut to the same
dims. Each also of documents stored as codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from emb.artifact.bundle import is_bundle
from emb.data.classification_sets import TEST
from emb.data.evaluation_sets import Task, read_tasks
from emb.errors import UsageError
from emb.evaluate.mteb_results import ResultFolder
from emb.evaluate.mteb_tasks import MtebTask, find_tasks, loaded
from emb.evaluate.scores import Evaluation
from emb.evaluate.scoring import Scoring
from emb.evaluate.storage import Storage, open_storages
from emb.evaluate.subjects import Subject, open_bundle, open_subject, parts_of
from emb.quantize.vectors.rescoring import DEPTH


def evaluate(
    models: Sequence[str | Path],
    data: Sequence[str | Path] = (),
    *,
    tasks: Sequence[Any] = (),
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
    mteb_json: Path | None = None,
    languages: Sequence[str] = (),
    verify: bool = True,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Score `models`, and `teacher` if given, on every set in `data` and every task of mteb in `tasks`.

    Args:
        models: runs (their static encoders too, as 0 layers), students, exported artifacts (each ONNX file is scored),
            other sentence-transformers folders, by path or by name, or a bundle, which brings its teacher.
        data: BEIR folders, STS tables, labelled texts, or folders of those.
        tasks: tasks of mteb by name, NAME=PATH for one whose data are in files, or mteb's task objects.
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
        rescore: "float", "lvq8", "int8" or the folder of a codec: the codes' first `depth` are put in order by finer
            vectors.
        depth: how many of them.
        split: which grades of BEIR folders, `qrels/{split}.tsv`, and which labelled texts; None stands for "test".
        side: "symmetric" scores a model on both sides alone, "asymmetric" the queries of students on the documents of
            the teacher alone, so that students encode none; None stands for both.
        mteb_json: also write each score there, as soon as it is known, in the files that mteb writes and reads.
        languages: of the sets in `data`, for those files, as mteb names them: "eng-Latn".
        verify: compare the files of artifacts with the hashes that they were written with.
        trust_remote_code: let models whose folders bring code of their own run it.

    Raises:
        DataError: an evaluation set that is missing or damaged, has no such split, or cannot be fetched.
        UsageError: a dim or exit that no model has, `side` "asymmetric" without a teacher, a split without a set that
            has some, a task that mteb does not know, or a codec of more dims than any.
        ArtifactError: no codec in a folder, or an artifact that has changed since it was written.
        TeacherError: a model that cannot be found.
        MissingExtra: mteb is asked for and not installed.
        NotFiniteError: a model gave NaN or infinity; the text is named.
    """
    bundle = _bundle_among(models, teacher, side, [*layers, *precisions])
    if not models and teacher is None:
        raise UsageError("no model to evaluate", "name one or more folders, or a --teacher")
    if side == "asymmetric" and teacher is None and bundle is None:
        raise UsageError("--side asymmetric: no teacher to encode documents", "name it with --teacher")
    sets, storages = _sets(data, tasks, split), open_storages(codecs, rescore, depth)
    results = ResultFolder(mteb_json, languages) if mteb_json is not None else None
    with ExitStack() as held:
        theirs = [held.enter_context(loaded(task)) for task in find_tasks(tasks, split)]
        _require_names(sets, theirs)
        how = {"verify": verify, "trust_remote_code": trust_remote_code}
        opened, subjects = _open(models, bundle, teacher, layers, dtype, precisions, threads, how)
        side = side if bundle is None else "asymmetric"
        scoring = Scoring(sets, theirs, storages, dims, side, cache, opened, results, split or TEST)
        for subject in subjects:
            scoring.add(subject)
    _require_scores(scoring.found, dims, storages)
    return scoring.found


def _sets(data: Sequence[str | Path], tasks: Sequence[Any], split: str | None) -> list[Task]:
    if not data and not tasks:
        raise UsageError("nothing to evaluate on", "name files or folders with --data, or tasks of mteb with --task")
    return read_tasks(data, split) if data else []


def _require_names(sets: Sequence[Task], theirs: Sequence[MtebTask]) -> None:
    for name in {task.name for task in sets} & {task.name for task in theirs}:
        raise UsageError(f"--task {name}: a set in --data has the same name", "rename the folder or file")


def _bundle_among(
    models: Sequence[str | Path], teacher: str | Path | None, side: str | None, chosen: Sequence[int | str]
) -> Path | None:
    """The bundle, if it is what is evaluated."""
    bundles = [Path(model) for model in models if is_bundle(Path(model))]
    if not bundles:
        return None
    if len(models) > 1 or teacher is not None:
        raise UsageError(
            f"{bundles[0]}: a bundle brings its own teacher",
            "evaluate it alone, without --teacher; its two encoders are models of their own, too",
        )
    if chosen:
        raise UsageError(f"{bundles[0]}: a bundle has one query encoder", "leave out --layers and --precision")
    if side == "symmetric":
        raise UsageError(f"--side symmetric: the two sides of {bundles[0]} are two models", "leave it out")
    return bundles[0]


def _open(
    models: Sequence[str | Path],
    bundle: Path | None,
    teacher: str | Path | None,
    layers: Sequence[int],
    dtype: str,
    precisions: Sequence[str],
    threads: int | None,
    how: Mapping[str, bool],
) -> tuple[Subject | None, Iterable[Subject]]:
    """The teacher, and the models, each opened when it is its turn."""
    if bundle is not None:
        query, document = open_bundle(bundle, dtype, threads, **how)
        return document, [query]
    parts = (part for model in models for part in parts_of(model, layers))
    subjects = ((part, open_subject(part, exits, "fp32", precisions, threads, **how)) for part, exits in parts)
    first = open_subject(teacher, (), dtype, (), threads, **how) if teacher is not None else None
    return first, _told_apart(first, subjects)


def _told_apart(teacher: Subject | None, subjects: Iterable[tuple[str | Path, Subject]]) -> Iterator[Subject]:
    """The same; of two folders with one name the second goes by its whole path, or its figures would stand in place of
    the first one's.
    """
    known = {(teacher.name, point): teacher.folder for point in teacher.points} if teacher else {}
    for path, subject in subjects:
        rows = [(subject.name, point) for point in subject.points]
        if any(known.setdefault(row, subject.folder) != subject.folder for row in rows):
            subject.name = str(path)
        yield subject


def _require_scores(found: Evaluation, dims: Sequence[int], storages: Sequence[Storage]) -> None:
    if not any(score.storage is None for score in found.scores):
        raise UsageError(f"dims {','.join(map(str, dims))}: no model has as many dimensions", "give smaller dims")
    for storage in storages:
        if not any(score.storage == str(storage) for score in found.scores):
            raise UsageError(
                f"--codec {storage.name}: nothing was scored with its {storage.codec.dim} dims",
                "give a model of as many dims and a retrieval set",
            )
