"""One distillation from recipe to artifact, in the order the data flows."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from emb.artifact.manifest import Manifest, PairScores
from emb.artifact.runs import STATIC, free_name, latest_run, run_status, write_status
from emb.data.corpus import Columns
from emb.distill.forecast import FORECAST, Forecast, forecast, is_worth_it, read_forecast, write_forecast
from emb.distill.language import warn_of_shards
from emb.distill.losses import objective_of
from emb.distill.one_student import RECIPE, Planned, check_pairs, planned, train_student, with_pairs_of
from emb.distill.preparation import Prepared, prepare, read_texts, searched
from emb.distill.query_encoder import parts_of, with_query_defaults
from emb.distill.rotated_teacher import ASIDE, read_rotation, rotated, rotation_for, write_aside
from emb.distill.student import check_layers, depth_of, with_defaults
from emb.errors import ArtifactError, UsageError
from emb.files import atomic_path
from emb.locks import locked
from emb.progress import is_quiet, note, set_quiet
from emb.recipes.recipe import DataRecipe, Recipe, dump, load_recipe
from emb.teachers.function import FUNCTION
from emb.teachers.protocol import Teacher as VectorTeacher
from emb.teachers.registry import Resolved, resolve
from emb.teachers.vector_file import SUFFIXES, VectorFileTeacher

LOCK = ".lock"


def run_distillation(
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    *,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    trust_remote_code: bool,
    teacher: VectorTeacher | None = None,
    dry_run: bool = False,
) -> tuple[Path, list[PairScores], Forecast | None]:
    """Carry out a recipe; return the run's folder, the final scores of each pair, and what was expected before.

    A dry run stops behind the forecast, whose scores it returns: nothing is written but the teacher's vectors of a
    sample.

    Raises:
        EmbError: see `emb.errors`; what was computed before stays and is used by `resume`.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())
    set_quiet(is_quiet() or not processes.is_main_process)
    if resume:
        out = out or _latest()
        recipe_name = str(out / RECIPE)
        if run_status(out) is None:
            raise ArtifactError(f"{out}: no run to resume", "leave out --resume to start one there")
        if run_status(out) == "finished":
            note(f"{out} is finished already")
            return out, finished_scores(out), read_forecast(out / FORECAST)
    recipe = load_recipe(recipe_name, overrides)
    if resume:
        _refuse_other(load_recipe(recipe_name, {}), recipe, dry_run)
    recipe, found = _resolved(recipe, teacher, trust_remote_code)
    if dry_run:
        recipe, source = read_texts(recipe)
        expected = forecast(recipe, found, source, processes, trust_remote_code)
        return out or free_name(Path("runs"), _stem(found)), expected.scores, expected
    out = _agreed(lambda: _folder(out, found, resume, overwrite), processes)
    with _locked(out) if processes.is_main_process else contextlib.nullcontext():
        scores = _carry_out(recipe, found, out, processes, fresh=not resume, trust_remote_code=trust_remote_code)
        processes.wait_for_everyone()
    return out, scores, read_forecast(out / FORECAST)


def _refuse_other(begun: Recipe, asked: Recipe, dry_run: bool) -> None:
    """A run goes on in the space it began in."""
    if dry_run:
        raise UsageError("--dry-run: the run has begun, and a forecast comes before", "leave out --resume")
    for key in ("teacher", "rotate"):
        if getattr(begun, key) != getattr(asked, key):
            raise UsageError(
                f"--resume: {key} is {getattr(begun, key)} in this run, not {getattr(asked, key)}",
                "leave it out, or begin another run",
            )


def _resolved(recipe: Recipe, given: VectorTeacher | None, trust_remote_code: bool) -> tuple[Recipe, Resolved]:
    """The recipe with nothing left open that can be told before any text is read, and its teacher."""
    objective_of(recipe.training.objective or ())  # an unknown term is said before anything is computed
    found = _teacher_of(recipe, given, trust_remote_code)
    depth = None if found.vectors else depth_of(found.path)
    recipe = with_query_defaults(recipe, depth)
    recipe = recipe.model_copy(update={"student": with_defaults(recipe.student, found), "data": _data(recipe, found)})
    check_layers(recipe.student, depth)
    return recipe, found


def _teacher_of(recipe: Recipe, given: VectorTeacher | None, trust_remote_code: bool) -> Resolved:
    """The teacher given, or the one that the recipe names: a file of vectors, or a model.

    Raises:
        UsageError: the recipe is of a run with a function for a teacher, and none is given; parallel text with vectors
            in the order of other texts.
    """
    if given is not None:
        return Resolved(Path(), recipe.teacher.removeprefix(FUNCTION), vectors=given)
    if recipe.teacher.startswith(FUNCTION):
        raise UsageError(
            f"{recipe.teacher}: the teacher of this run is a function",
            "give it again, in Python: emb.distill(teacher=function, resume=True)",
        )
    path = Path(recipe.teacher).expanduser()
    if path.suffix in SUFFIXES and path.is_file():
        _refuse_parallel(path, recipe.data)
        columns = Columns(recipe.data.field, recipe.data.kind_field)
        return Resolved(
            path, path.stem, vectors=VectorFileTeacher(path, recipe.data.sources, columns, recipe.capture.column)
        )
    return resolve(recipe.teacher, trust_remote_code=trust_remote_code)


def _refuse_parallel(vectors: Path, data: DataRecipe) -> None:
    if data.parallel and vectors.suffix == ".npy":
        raise UsageError(
            f"--parallel {data.parallel[0]}: {vectors} has vectors in the order of --data, none for these texts",
            "give the teacher itself, or a Parquet file that holds texts and their vectors, these among them",
        )


def _data(recipe: Recipe, teacher: Resolved) -> DataRecipe:
    """Where texts come from: a Parquet file of vectors has its own."""
    beside = teacher.path.suffix == ".parquet" and not recipe.data.sources
    return recipe.data.model_copy(update={"sources": [str(teacher.path)]}) if beside else recipe.data


def _agreed(choose: Callable[[], Path], processes: PartialState) -> Path:
    """The folder that the first of the processes chose: the others would find it taken already."""
    chosen = [choose() if processes.is_main_process else None]
    return cast(Path, broadcast_object_list(chosen)[0])


def _folder(out: Path | None, teacher: Resolved, resume: bool, overwrite: bool) -> Path:
    """Where the run goes.

    Raises:
        ArtifactError: something is in the way that must not, or was not said to, be replaced.
    """
    if out is None:
        return free_name(Path("runs"), _stem(teacher))
    vacant = not out.exists() or (out.is_dir() and not any(path.name not in (LOCK, ASIDE) for path in out.iterdir()))
    if resume or vacant:
        return out
    if teacher.path != Path() and out.resolve() in (teacher.path.resolve(), *teacher.path.resolve().parents):
        raise ArtifactError(f"{out}: the teacher lies in there", "choose another --out, or take the teacher elsewhere")
    if not overwrite or run_status(out) is None:
        hint = "choose another --out" + (
            ", or add --resume or --overwrite"
            if run_status(out)
            else "; it is no run, so --overwrite will not replace it"
        )
        raise ArtifactError(f"{out}: already exists", hint)
    return out


def _stem(teacher: Resolved) -> str:
    return teacher.name.split("/")[-1].lower()


def _carry_out(
    recipe: Recipe, teacher: Resolved, out: Path, processes: PartialState, *, fresh: bool, trust_remote_code: bool
) -> list[PairScores]:
    recipe, source = read_texts(recipe)
    if not fresh:
        expected = read_forecast(out / FORECAST)
    elif expected := forecast(recipe, teacher, source, processes, trust_remote_code) if is_worth_it(source) else None:
        note(expected.told())
    begin = partial(_begin, out, recipe, teacher, expected, processes) if fresh else None
    found = searched(recipe, teacher, source, trust_remote_code)
    if found:  # told before anything is written over
        check_pairs(recipe.pairs or (), recipe.student.layers, found.vectors.shape[1])
    rotation = rotation_for(recipe, teacher, found) if fresh else read_rotation(out)
    if found and rotation is not None:
        if begin and processes.is_main_process:
            write_aside(teacher, rotation, out, trust_remote_code)
        if begin:
            begin((LOCK, ASIDE))
            begin = None
        main = processes.is_main_process
        teacher, found = rotated(teacher, found, rotation, out, source.corpus.texts, write=main)
        processes.wait_for_everyone()
    given = prepare(recipe, teacher, source, found, trust_remote_code)
    plans = [planned(part, given, place, trust_remote_code) for part, place in _parts(recipe, out, fresh)]
    plans[-1] = with_pairs_of(plans[-1], plans[:-1])
    if recipe.student.source == "teacher":
        warn_of_shards(plans[0].student, given)
    if begin:
        begin()
    scores = expected.scores if expected else ()
    return [each for plan in plans for each in _trained(plan, given, processes, scores)]


def _parts(recipe: Recipe, out: Path, fresh: bool) -> list[tuple[Recipe, Path]]:
    """The recipe and the folder of the static encoder beside the student, as it was begun if it was, and of that."""
    static, recipe = parts_of(recipe)
    begun = out / STATIC / RECIPE
    if begun.is_file() and not fresh:
        static = load_recipe(str(begun), {})
    return [*([(static, out / STATIC)] if static else []), (recipe, out)]


def _trained(
    plan: Planned, given: Prepared, processes: PartialState, expected: Sequence[PairScores]
) -> list[PairScores]:
    if run_status(plan.out) == "finished":
        return Manifest.load(plan.out / "student").pairs
    note(f"a student of {plan.student.layers} layers" if plan.student.layers else "a static encoder: a row per token")
    return train_student(plan, given, processes, expected)


def finished_scores(out: Path) -> list[PairScores]:
    """The scores of a finished run's students, the static one's first."""
    places = [place / "student" for place in (out / STATIC, out) if run_status(place) == "finished"]
    return [each for place in places for each in Manifest.load(place).pairs]


def _begin(
    out: Path,
    recipe: Recipe,
    teacher: Resolved,
    expected: Forecast | None,
    processes: PartialState,
    kept: Sequence[str] = (LOCK,),
) -> None:
    """From here on there is a run, to resume or to overwrite; of what lay in its folder the names in `kept` stay."""
    if processes.is_main_process:
        for path in out.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with atomic_path(out / RECIPE) as unfinished:
            unfinished.write_text(dump(recipe), encoding="utf-8")
        if expected:
            write_forecast(expected, out / FORECAST)
        write_status(out, "running", teacher=teacher.name)
    processes.wait_for_everyone()


def _latest() -> Path:
    try:
        return latest_run(status="running")
    except UsageError:
        return latest_run()


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    def busy() -> None:
        raise UsageError(f"{out}: another process is working on this run", "wait for it, or choose another --out")

    with locked(out / LOCK, busy):
        try:
            yield
        finally:
            _remove_if_vacant(out)


def _remove_if_vacant(out: Path) -> None:
    # What failed before it began leaves nothing in the way of the next try.
    if [path.name for path in out.iterdir()] in ([], [LOCK]):
        (out / LOCK).unlink(missing_ok=True)
        out.rmdir()
