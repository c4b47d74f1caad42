"""One distillation from recipe to artifact, in the order the data flows."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from emb.artifact.lineage import DataRecord, Lineage, TeacherRecord
from emb.artifact.manifest import Kind, LayerDimPair, Manifest, PairScores
from emb.artifact.runs import HELD_OUT, free_name, latest_run, run_status, write_status
from emb.data.corpus import Columns, Corpus, Text, split
from emb.data.pseudo_queries import Cuts
from emb.distill.after_training import average, flatten_projections
from emb.distill.checkpoint import has_checkpoint
from emb.distill.held_out_scores import exit_vectors
from emb.distill.losses import objective_of
from emb.distill.projection import fit_projections
from emb.distill.query_encoder import with_query_defaults
from emb.distill.retention import known_items, with_retention
from emb.distill.student import build_student, depth_of, with_defaults
from emb.distill.targets import Targets, corpus_of, document_vectors, documents_of, targets_of, tokenise
from emb.distill.train import Split, Training
from emb.errors import ArtifactError, CheckpointError, UsageError
from emb.files import atomic_folder, atomic_path
from emb.locks import locked
from emb.machine import device, resolve_dtype
from emb.model.dense import linear
from emb.model.embedding_model import EmbeddingModel, save_model
from emb.model.static import StaticEncoder
from emb.progress import is_quiet, note, set_quiet
from emb.recipes.recipe import DataRecipe, Recipe, dump, load_recipe
from emb.teachers.cache import TeacherEmbeddings
from emb.teachers.function import FUNCTION
from emb.teachers.protocol import Teacher as VectorTeacher
from emb.teachers.registry import Resolved, resolve
from emb.teachers.vector_file import SUFFIXES, VectorFileTeacher

RECIPE = "recipe.yaml"
START = "start.safetensors"  # the weights that training begins from
LOCK = ".lock"
# Of random token rows: a step moves few of them, so it is long, and batches are of hundreds of texts.
STATIC = {"lr": 1e-2, "lr_end": 1e-5, "epochs": 6.0, "tokens_per_batch": 8192, "weight_decay": 0.0, "warmup_steps": 0}


def run_distillation(
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    *,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    trust_remote_code: bool,
    teacher: VectorTeacher | None = None,
) -> tuple[Path, list[PairScores]]:
    """Carry out a recipe; return the run's folder and the final scores of each pair.

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
            return out, Manifest.load(out / "student").pairs
    recipe = load_recipe(recipe_name, overrides)
    objective_of(recipe.training.objective or ())  # an unknown term is said before anything is computed
    found = _teacher_of(recipe, teacher, trust_remote_code)
    recipe = with_query_defaults(recipe, None if found.vectors else depth_of(found.path))
    recipe = recipe.model_copy(update={"student": with_defaults(recipe.student, found), "data": _data(recipe, found)})
    out = _agreed(lambda: _folder(out, found, resume, overwrite), processes)
    with _locked(out) if processes.is_main_process else contextlib.nullcontext():
        scores = _carry_out(recipe, found, out, processes, fresh=not resume, trust_remote_code=trust_remote_code)
        processes.wait_for_everyone()
    return out, scores


def _teacher_of(recipe: Recipe, given: VectorTeacher | None, trust_remote_code: bool) -> Resolved:
    """The teacher given, or the one that the recipe names: a file of vectors, or a model.

    Raises:
        UsageError: the recipe is of a run with a function for a teacher, and none is given.
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
        columns = Columns(recipe.data.field, recipe.data.kind_field)
        return Resolved(
            path, path.stem, vectors=VectorFileTeacher(path, recipe.data.sources, columns, recipe.capture.column)
        )
    return resolve(recipe.teacher, trust_remote_code=trust_remote_code)


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
        return free_name(Path("runs"), teacher.name.split("/")[-1].lower())
    vacant = not out.exists() or (out.is_dir() and not any(path.name != LOCK for path in out.iterdir()))
    if resume or vacant:
        return out
    if not overwrite or run_status(out) is None:
        hint = "choose another --out" + (
            ", or add --resume or --overwrite"
            if run_status(out)
            else "; it is no run, so --overwrite will not replace it"
        )
        raise ArtifactError(f"{out}: already exists", hint)
    return out


def _carry_out(
    recipe: Recipe, teacher: Resolved, out: Path, processes: PartialState, *, fresh: bool, trust_remote_code: bool
) -> list[PairScores]:
    corpus = corpus_of(recipe)
    train, held_out = split(corpus, recipe.data.holdout)
    targets = targets_of(recipe, teacher, train, held_out, trust_remote_code)
    student = build_student(
        recipe.student,
        teacher,
        targets.spec,
        targets.weights,
        seed=recipe.training.seed,
        trust_remote_code=trust_remote_code,
    )
    recipe = _completed(recipe, student, targets)
    if processes.is_main_process and (fresh or not has_checkpoint(out / "checkpoints")):
        _start(out, recipe, teacher, held_out)
    processes.wait_for_everyone()
    pairs = [LayerDimPair(*pair) for pair in recipe.pairs or ()]
    parts = [
        Split(tokenise(student, part.texts, recipe.capture.max_length), vectors)
        for part, vectors in ((train, targets.train), (held_out, targets.held_out))
    ]
    resumed = has_checkpoint(out / "checkpoints")
    _start_heads(student.to(device()), parts[0], pairs, recipe, resumed=resumed)
    training = Training(
        student, parts[0], parts[1], pairs, recipe.training, out, _identity(recipe, corpus, targets.fingerprint)
    )
    if processes.is_main_process and not resumed and recipe.training.average < 1:
        _keep(student, out / START)
    training.run()
    powers = _finish(training, out / START, recipe)
    scores = training.evaluate()
    if recipe.data.documents and processes.is_main_process:
        scores = _retained(training, scores, recipe, teacher, held_out, trust_remote_code)
    processes.wait_for_everyone()
    if processes.is_main_process:
        _save(student, out, scores, _lineage(recipe, teacher, corpus, targets, powers))
        write_status(out, "finished", teacher=teacher.name, steps=training.step)
        (out / START).unlink(missing_ok=True)
    return scores


def _completed(recipe: Recipe, student: EmbeddingModel, targets: Targets) -> Recipe:
    """The recipe with what follows from student and teacher written out."""
    implied = {
        # Of a static student there is nothing else to train.
        "train_token_embeddings": str(recipe.student.source).startswith("fresh:") or student.layers == 0,
        # A cosine says nothing about length, and a teacher that does not normalise has lengths.
        "objective": [{"cosine" if targets.spec.normalize else "l2": 1.0}],
    }
    given = recipe.training.model_fields_set
    implied = {key: value for key, value in implied.items() if getattr(recipe.training, key) is None}
    if isinstance(student.encoder, StaticEncoder) and student.encoder.weights is not None:
        implied |= {key: value for key, value in STATIC.items() if key not in given}
    training = recipe.training.model_copy(update=implied)
    return recipe.model_copy(update={"pairs": _pairs(recipe, student, targets.train.dim), "training": training})


def _pairs(recipe: Recipe, student: EmbeddingModel, teacher_dim: int) -> list[tuple[int, int]]:
    """The recipe's pairs, checked; or exits at half, two thirds and all of the layers × four dims.

    Raises:
        UsageError: a pair beyond the student's layers or the teacher's dim.
    """
    depth = student.layers
    exits = {depth, -(-2 * depth // 3), -(-depth // 2)}
    dims = {teacher_dim, teacher_dim // 2, 256, 128}
    pairs = recipe.pairs or [(n, dim) for n in exits for dim in dims if dim <= teacher_dim]
    for n, dim in pairs:
        if not min(1, depth) <= n <= depth or not 1 <= dim <= teacher_dim:
            raise UsageError(
                f"pairs: [{n}, {dim}] is beyond the student's {depth} layers or the teacher's {teacher_dim} dims",
                "edit `pairs` in the recipe",
            )
    # The whole student is always trained: it is what the folder gives when loaded as it is.
    return sorted({*((int(n), int(dim)) for n, dim in pairs), (depth, teacher_dim)})


def _start(out: Path, recipe: Recipe, teacher: Resolved, held_out: Corpus) -> None:
    for path in out.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with atomic_path(out / RECIPE) as partial:
        partial.write_text(dump(recipe), encoding="utf-8")
    with atomic_path(out / HELD_OUT) as partial:  # what exports are measured on, wherever the corpus has gone by then
        partial.write_text(
            "".join(json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n" for item in held_out.texts),
            encoding="utf-8",
        )
    write_status(out, "running", teacher=teacher.name)


def _start_heads(
    student: EmbeddingModel, train: Split, pairs: Sequence[LayerDimPair], recipe: Recipe, *, resumed: bool
) -> None:
    exits = sorted({pair.layers for pair in pairs})
    missing = [n for n in exits if str(n) not in student.heads]
    if resumed:  # the checkpoint brings their weights
        student.heads.update(
            {str(n): linear(torch.zeros(train.targets.dim, student.hidden)).to(device()) for n in missing}
        )
    elif missing:
        _fit(student, train, missing, recipe)
    student.heads = torch.nn.ModuleDict({str(n): student.heads[str(n)] for n in exits})


def _fit(student: EmbeddingModel, train: Split, exits: Sequence[int], recipe: Recipe) -> None:
    chosen = torch.randperm(len(train.rows), generator=torch.Generator().manual_seed(recipe.training.seed))[
        : recipe.projection.texts
    ].tolist()
    sample = Split(
        [train.rows[i] for i in chosen], TeacherEmbeddings(train.targets.shards, train.targets.places[chosen])
    )
    budget, dtype = recipe.training.tokens_per_batch, resolve_dtype(recipe.training.precision)
    fit_projections(
        student, sample.rows, sample.targets, exits, ridge=recipe.projection.ridge, tokens_per_batch=budget, dtype=dtype
    )


def _keep(student: EmbeddingModel, path: Path) -> None:
    with atomic_path(path) as partial:
        save_file(
            {name: weight.detach().contiguous() for name, weight in student.named_parameters() if weight.requires_grad},
            partial,
        )


def _kept(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: missing or damaged ({error})",
            "start again with --overwrite; the teacher's vectors are still cached",
        ) from error


def _finish(training: Training, start: Path, recipe: Recipe) -> dict[str, float]:
    """Average the weights and flatten the projections as the recipe says; the powers chosen, per exit."""
    student, held_out = training.student, training.held_out
    if recipe.training.average < 1:
        average(student, _kept(start), recipe.training.average)
    if isinstance(student.encoder, StaticEncoder):
        student.encoder.fold()
    if not student.spec.normalize:
        return {}  # the length of the vectors means something, and would change
    chosen = flatten_projections(
        student,
        held_out.rows,
        training.held_targets,
        training.pairs,
        recipe.projection.powers,
        tokens_per_batch=recipe.training.tokens_per_batch,
    )
    if not chosen:
        return {}
    note(
        "projections end with their singular values to the power of "
        + ", ".join(f"{power} (layer {n})" for n, power in chosen.items())
    )
    return {str(n): power for n, power in chosen.items()}


def _retained(
    training: Training,
    scores: list[PairScores],
    recipe: Recipe,
    teacher: Resolved,
    held_out: Corpus,
    trust_remote_code: bool,
) -> list[PairScores]:
    """The scores with what each pair keeps of the teacher's search in the documents named."""
    documents, student = documents_of(recipe), training.student
    whole = Corpus([Text(each.whole) for each in documents])
    vectors = document_vectors(recipe, teacher, whole, trust_remote_code)
    cuts = Cuts(**recipe.data.cuts.model_dump())
    items = known_items(held_out.texts, documents, vectors, cuts, recipe.training.seed)
    outputs = exit_vectors(student, student, training.held_out.rows, training.exits, recipe.training.tokens_per_batch)
    found = {pair: outputs[pair.layers][:, : pair.dim] for pair in training.pairs}
    return with_retention(scores, items, training.held_targets, found, student.spec.similarity)


def _identity(recipe: Recipe, corpus: Corpus, fingerprint: str) -> str:
    """Everything the weights depend on; when to evaluate and to save may change on the way."""
    values = recipe.model_dump(mode="json", exclude={"training": True, "capture": {"column"}})
    unset = DataRecipe().model_dump(mode="json")
    for key in ("documents", "as_queries", "mix", "cuts"):  # runs that began before these were there go on
        if values["data"][key] == unset[key]:
            del values["data"][key]
    values["training"] = {key: value for key, value in recipe.training.identity().items() if key != "evaluate_every"}
    content = json.dumps([values, corpus.digest, fingerprint], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _lineage(recipe: Recipe, teacher: Resolved, corpus: Corpus, targets: Targets, powers: dict[str, float]) -> Lineage:
    libraries = ("torch", "transformers", "sentence-transformers", "tokenizers", "accelerate", "numpy")
    versions = {"python": platform.python_version(), **{name: version(name) for name in libraries}}
    path = str(teacher.path.resolve()) if teacher.path != Path() else ""
    return Lineage(
        TeacherRecord(teacher.name, path, teacher.revision, targets.fingerprint, targets.weights),
        recipe.model_dump(mode="json"),
        DataRecord(corpus.digest, len(corpus)),
        recipe.training.seed,
        versions,
        powers,
    )


def _save(student: EmbeddingModel, out: Path, scores: list[PairScores], lineage: Lineage) -> None:
    spec = student.spec
    with atomic_folder(out / "student", replace=True) as folder:
        save_model(student.cpu().float(), folder)
        manifest = Manifest(
            Kind.STUDENT,
            student.layers,
            student.dim,
            spec.pooling,
            spec.normalize,
            spec.max_length,
            dict(spec.prompts),
            pairs=scores,
            lineage=lineage,
            similarity=spec.similarity,
        )
        manifest.save(folder)


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
