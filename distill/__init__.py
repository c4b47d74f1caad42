"""Distilling: corpus, teacher vectors, student, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.artifact.manifest import PairScores
from emb.artifact.runs import TEACHER
from emb.doors import open_door
from emb.errors import needs_extra

if TYPE_CHECKING:
    from emb.distill.forecast import Forecast
    from emb.distill.rotation import Rotated
    from emb.teachers.protocol import Teacher


@dataclass(frozen=True)
class DistillResult:
    """Where a finished run and its student are, and the held-out scores of each pair.

    `teacher` is the folder of the teacher where the run rotated it: documents are encoded by that. `forecast` is what
    was expected before, where that was reckoned; of a dry run there is nothing else, and its scores are the expected
    ones.
    """

    run: Path
    student: Path
    scores: list[PairScores]
    teacher: Path | None = None
    forecast: Forecast | None = None

    @property
    def advised(self) -> PairScores | None:
        """The (layers, dim) pair to export: the smallest that keeps about as much as any (`distill.retention`)."""
        from emb.distill.retention import advised

        return advised(self.scores)


def distill(
    teacher: str | Path | Callable[..., Any] | Teacher | None = None,
    *,
    teacher_vectors: str | Path | None = None,
    data: Sequence[str | Path] = (),
    parallel: Sequence[str | Path] = (),
    field: str | None = None,
    kind_field: str | None = None,
    documents: Sequence[str | Path] = (),
    for_queries: bool = False,
    rotate: bool | None = None,
    student: str | Path | None = None,
    layers: int | None = None,
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    max_steps: int | None = None,
    max_time: float | None = None,
    trust_remote_code: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> DistillResult:
    """Distil `teacher` into a student in the same vector space.

    Args:
        teacher: a name of `emb models`, a hub id, or a folder; a function that gives vectors `(texts, dim)` of a
            list of texts (and takes `kind="query"` or "document", if it has such an argument), or any
            `emb.teachers.protocol.Teacher`; None takes the recipe's. A function or a file of vectors needs a `student`.
        teacher_vectors: in place of a teacher, a .npy file with a vector for each text of `data`, in order, or a
            Parquet file with a column of texts and one of vectors (`capture.column`), which is then the data as well.
        data: files, folders or hub data sets; none means the texts every machine has.
        parallel: files of texts and their translations, beside `data` or alone: the student learns to give both the
            teacher's vector of the text, so a teacher of one language makes a student of two. A .tsv of two columns,
            or records with the fields text and translation.
        field, kind_field: the fields of a record that hold the text and "query" or "document".
        documents: files or folders that will be searched: the student becomes an encoder for queries to them, trained
            on pseudo-queries cut from them and on `data` beside; the scores then have a `retention`.
        for_queries: make an encoder for queries without knowing the documents: all texts are trained on as queries.
        rotate: turn the teacher to `documents`, so that vectors can be cut; its folder is then `teacher` in the run,
            and documents are encoded by that. None means: unless the teacher was trained to be cut.
        student: a name or folder, "teacher", or "fresh:LAYERSxHIDDEN"; None takes the registry's recommendation.
        layers: keep so many layers of the student's source (of the teacher, if no student is named); 0 leave a row
            per token, a static encoder.
        recipe: a shipped recipe or a YAML file; every other argument overrides it.
        out: the run's folder; None means `runs/<teacher>`.
        resume: go on with an interrupted run, to the same weights as if it had not stopped.
        overwrite: replace a run that is in the way.
        dry_run: stop behind a forecast of scores and times, from a short training on a sample.
        max_steps, max_time: stop after so many steps, or about so many seconds of training; the learning rate is
            planned to end there.
        trust_remote_code: let the teacher's repository run code of its own.
        overrides: recipe values by dotted key, `{"training.lr": 1e-4}`.

    Raises:
        EmbError: whatever a user can mend; see `emb.errors`.
    """
    with needs_extra():
        from emb.distill.run import run_distillation
        from emb.teachers.function import as_teacher, teacher_name

    given_teacher = None if isinstance(teacher, str | Path | None) else as_teacher(teacher)
    named = {
        "teacher": teacher_name(teacher, given_teacher, teacher_vectors),
        "data.sources": [str(source) for source in data] or None,
        "data.parallel": [str(source) for source in parallel] or None,
        "data.documents": [str(source) for source in documents] or None,
        "data.as_queries": for_queries or None,
        "rotate": rotate,
        "data.field": field,
        "data.kind_field": kind_field,
        "student.source": student,
        "student.layers": layers,
        "training.max_steps": max_steps,
        "training.max_time": max_time,
    }
    given = {key: str(value) if isinstance(value, Path) else value for key, value in named.items() if value is not None}
    run, scores, expected = run_distillation(
        None if recipe is None else str(recipe),
        {**(overrides or {}), **given},
        out=None if out is None else Path(out),
        resume=resume,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
        teacher=given_teacher,
        dry_run=dry_run,
    )
    rotated = run / TEACHER
    return DistillResult(run, run / "student", scores, rotated if rotated.is_dir() else None, expected)


def rotate(
    teacher: str | Path,
    *,
    documents: Sequence[str | Path] = (),
    data: Sequence[str | Path] = (),
    field: str | None = None,
    out: str | Path,
    moved: Sequence[tuple[str | Path, str | Path]] = (),
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Rotated:
    """Write a teacher whose vectors are turned so that their first dims say most (`distill.rotation`).

    Every product of two of its vectors stays as it was at full dim.

    Args:
        teacher: a name of `emb models`, a hub id, or a folder.
        documents: files or folders that will be searched, to fit the rotation to.
        data: texts to fit it to where the documents are not known; none means the texts every machine has.
        field: the field of a record that holds the text.
        out: the folder of the rotated model, which distillation, evaluation and any client open like another.
        moved: indexes of the plain teacher's vectors, each with the .npy file that its rotation goes to.
        overwrite: replace what is in the way.
        trust_remote_code: let the teacher's repository run code of its own.

    Raises:
        EmbError: whatever a user can mend; see `emb.errors`.
    """
    with needs_extra():
        from emb.distill.rotation import rotate as run
        from emb.recipes.recipe import load_recipe

    named = {
        "teacher": str(teacher),
        "data.documents": [str(source) for source in documents] or None,
        "data.sources": [str(source) for source in data] or None,
        "data.field": field,
    }
    recipe = load_recipe(None, {key: value for key, value in named.items() if value is not None})
    places = [(Path(source), Path(target)) for source, target in moved]
    return run(recipe, Path(out), overwrite=overwrite, moved=places, trust_remote_code=trust_remote_code)


open_door(__name__, distill)
