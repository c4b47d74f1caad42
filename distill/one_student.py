"""One student from its recipe to its folder: built, started in closed form, trained, finished, measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from emb.artifact.lineage import DataRecord, Lineage, TeacherRecord
from emb.artifact.manifest import Kind, LayerDimPair, Manifest, PairScores
from emb.artifact.runs import HELD_OUT, write_status
from emb.data.corpus import Corpus, Text
from emb.distill.after_training import average, flatten_projections
from emb.distill.checkpoint import has_checkpoint
from emb.distill.costs import with_costs
from emb.distill.document_order import DocumentOrder
from emb.distill.preparation import Prepared, splits_of
from emb.distill.projection import start_projections
from emb.distill.query_encoder import exits_of, is_for_queries
from emb.distill.retention import with_forecast, with_retention
from emb.distill.student import build_student
from emb.distill.student_vocabulary import fit_vocabulary
from emb.distill.targets import Targets, tokenise
from emb.distill.train import Split, Training
from emb.distill.translations import tell_translations
from emb.distill.which_layers import with_chosen_layers
from emb.errors import CheckpointError, UsageError
from emb.files import atomic_folder, atomic_path
from emb.machine import device
from emb.model.dense import linear
from emb.model.embedding_model import EmbeddingModel, save_model
from emb.model.static import StaticEncoder
from emb.progress import note
from emb.recipes.recipe import DataRecipe, Recipe, dump
from emb.teachers.cache import in_memory

RECIPE = "recipe.yaml"
DOCUMENTS = "documents"  # log and checkpoints of the stage before the queries
START = "start.safetensors"  # the weights that training begins from
# Of random token rows: a step moves few of them, so it is long, and batches are of hundreds of texts.
STATIC = {"lr": 1e-2, "lr_end": 1e-5, "epochs": 6.0, "tokens_per_batch": 8192, "weight_decay": 0.0, "warmup_steps": 0}


@dataclass(frozen=True)
class Planned:
    """A student that is built but not yet trained, its recipe with nothing left open, its folder, and the pairs of the
    static encoder beside it.
    """

    recipe: Recipe
    student: EmbeddingModel
    out: Path
    beside: tuple[tuple[int, int], ...] = ()


def planned(recipe: Recipe, given: Prepared, out: Path, trust_remote_code: bool) -> Planned:
    """Build the student of `recipe`, with the layers that suit it best where it says so; nothing is written.

    Raises:
        UsageError: layers, or pairs, beyond its source or its teacher.
    """
    recipe = with_chosen_layers(recipe, given, trust_remote_code)
    student = build_student(
        recipe.student,
        given.teacher,
        given.targets.spec,
        given.targets.weights,
        seed=recipe.training.seed,
        trust_remote_code=trust_remote_code,
    )
    if recipe.vocabulary:
        fit_vocabulary(student, recipe.vocabulary, given, fresh=_has_random_rows(recipe, student))
    return Planned(_completed(recipe, student, given.targets), student, out)


def with_pairs_of(plan: Planned, others: Sequence[Planned]) -> Planned:
    """`plan`, whose written recipe makes the students of `others` again too."""
    return dataclasses.replace(plan, beside=tuple(pair for each in others for pair in each.recipe.pairs or ()))


def train_student(
    plan: Planned, given: Prepared, processes: PartialState, expected: Sequence[PairScores] = ()
) -> list[PairScores]:
    """Train a student in its run's folder, or go on with that; the final scores of each pair, beside those expected."""
    recipe, student, out = plan.recipe, plan.student, plan.out
    resumed = has_checkpoint(out / "checkpoints")
    if processes.is_main_process and not resumed:
        whole = recipe.model_copy(update={"pairs": [*plan.beside, *(recipe.pairs or ())]})
        _write_start(out, whole, given)
    processes.wait_for_everyone()
    training = _training(student, recipe, given, out, resumed=resumed)
    if processes.is_main_process and not resumed and recipe.training.average < 1:
        _keep(student, out / START)
    if not resumed:
        _read_documents(training, given)
    training.run()
    spent = training.spent
    powers = _finish(training, out / START, recipe)
    scores = with_forecast(_scores(training, given), expected)
    processes.wait_for_everyone()
    if processes.is_main_process:
        _save(student, out, scores, _lineage(recipe, given, powers))
        write_status(out, "finished", teacher=given.teacher.name, steps=training.step, seconds=spent)
        (out / START).unlink(missing_ok=True)
        shutil.rmtree(out / DOCUMENTS, ignore_errors=True)
    return scores


def _training(student: EmbeddingModel, recipe: Recipe, given: Prepared, out: Path, *, resumed: bool) -> Training:
    """The training of a student whose projections have their closed-form start, or are in the checkpoint."""
    pairs = [LayerDimPair(*pair) for pair in recipe.pairs or ()]
    train, held_out = splits_of(student, given, recipe.capture.max_length)
    _start_heads(student.to(device()), train, pairs, recipe, resumed=resumed)
    identity = _identity(recipe, given.corpus, given.targets.fingerprint)
    return Training(student, train, held_out, pairs, recipe.training, out, identity, _order(student, recipe, given))


def _order(student: EmbeddingModel, recipe: Recipe, given: Prepared) -> DocumentOrder | None:
    """None without documents, and of vectors whose length means something."""
    if given.search is None or not recipe.ranking.weight or not student.spec.normalize:
        return None
    return DocumentOrder.of(given.search.documents, recipe.ranking, recipe.training.seed)


def _read_documents(training: Training, given: Prepared) -> None:
    """The first of two stages: the documents themselves, whose vectors are known (documents first, then queries, is
    the order of pyNIFE).
    """
    recipe = training.recipe.model_copy(update={"epochs": training.recipe.document_epochs})
    if not recipe.epochs or given.search is None:
        return
    student, vectors = training.student, given.search.documents
    texts = [Text(each.whole) for each in given.documents]
    part = Split(tokenise(student, texts, student.spec.max_length), in_memory(vectors))
    note(f"documents first: {len(texts):,} of them")
    folder = training.folder / DOCUMENTS
    folder.mkdir(exist_ok=True)
    Training(
        student, part, training.held_out, training.pairs, recipe, folder, f"documents of {training.identity}"
    ).run()


def _scores(training: Training, given: Prepared) -> list[PairScores]:
    """What each pair reaches on held-out texts and in the search that is held out, and what it costs."""
    student, outputs = training.student, training.held_out_vectors()
    scores = with_costs(training.scored(outputs), student, training.held_out.rows)
    last = scores[-1].pair
    tell_translations(given.held_out.texts, outputs[last.layers], training.held_targets, last)
    if given.search is None:
        return scores
    found = {pair: outputs[pair.layers][:, : pair.dim] for pair in training.pairs}
    return with_retention(scores, given.search, training.held_targets, found, student.spec.similarity)


def _has_random_rows(recipe: Recipe, student: EmbeddingModel) -> bool:
    return str(recipe.student.source).startswith("fresh:") or student.layers == 0


def _completed(recipe: Recipe, student: EmbeddingModel, targets: Targets) -> Recipe:
    """The recipe with what follows from student and teacher written out."""
    implied = {
        # Of a static student there is nothing else to train; and what is random must be.
        "train_token_embeddings": _has_random_rows(recipe, student)
        or bool(recipe.vocabulary and recipe.vocabulary.add),
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
    """The recipe's pairs, checked; or four dims at half, two thirds and all of the layers, or those of `exits_of`.

    Raises:
        UsageError: a pair beyond the student's layers or the teacher's dim.
    """
    depth = student.layers
    exits = exits_of(depth) if is_for_queries(recipe) else {depth, -(-2 * depth // 3), -(-depth // 2)}
    dims = {teacher_dim, teacher_dim // 2, 256, 128}
    pairs = recipe.pairs or [(n, dim) for n in exits for dim in dims if dim <= teacher_dim]
    check_pairs(pairs, depth, teacher_dim)
    # The whole student is always trained: it is what the folder gives when loaded as it is.
    return sorted({*((int(n), int(dim)) for n, dim in pairs), (depth, teacher_dim)})


def check_pairs(pairs: Sequence[tuple[int, int]], depth: int | None, dim: int) -> None:
    """Refuse pairs beyond a student of `depth` layers, where that is known, or a teacher of `dim` dims.

    Raises:
        UsageError: there is one.
    """
    for layers, wanted in pairs:
        if layers < 0 or (depth is not None and layers > depth) or not 1 <= wanted <= dim:
            own = "the student's" if depth is None else f"the student's {depth}"
            raise UsageError(
                f"pairs: [{layers}, {wanted}] is beyond {own} layers or the teacher's {dim} dims",
                "edit `pairs` in the recipe",
            )


def _write_start(out: Path, recipe: Recipe, given: Prepared) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / RECIPE) as partial:
        partial.write_text(dump(recipe), encoding="utf-8")
    with atomic_path(out / HELD_OUT) as partial:  # what exports are measured on, wherever the corpus has gone by then
        texts = (json.dumps(_record(item), ensure_ascii=False) for item in given.held_out.texts)
        partial.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    write_status(out, "running", teacher=given.teacher.name)


def _record(item: Text) -> dict[str, str]:
    """A text as a record; only a translation says what it translates."""
    return {key: value for key, value in dataclasses.asdict(item).items() if value is not None}


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
        start_projections(student, train, missing, recipe)
    student.heads = torch.nn.ModuleDict({str(n): student.heads[str(n)] for n in exits})


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


def _identity(recipe: Recipe, corpus: Corpus, fingerprint: str) -> str:
    """Everything the weights depend on; when to evaluate and to save may change on the way."""
    values = recipe.model_dump(mode="json", exclude={"training": True, "rotate": True, "capture": {"column"}})
    if not (recipe.data.documents and recipe.ranking.weight):
        del values["ranking"]
    unset = DataRecipe().model_dump(mode="json")
    for key in ("documents", "as_queries", "mix", "cuts", "parallel"):  # runs that began before these were there go on
        if values["data"][key] == unset[key]:
            del values["data"][key]
    if values["vocabulary"] is None:
        del values["vocabulary"]
    values["training"] = {key: value for key, value in recipe.training.identity().items() if key != "evaluate_every"}
    content = json.dumps([values, corpus.digest, fingerprint], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _lineage(recipe: Recipe, given: Prepared, powers: dict[str, float]) -> Lineage:
    libraries = ("torch", "transformers", "sentence-transformers", "tokenizers", "accelerate", "numpy")
    versions = {"python": platform.python_version(), **{name: version(name) for name in libraries}}
    teacher = given.teacher
    path = str(teacher.path.resolve()) if teacher.path != Path() else ""
    return Lineage(
        TeacherRecord(teacher.name, path, teacher.revision, given.targets.fingerprint, given.targets.weights),
        recipe.model_dump(mode="json"),
        DataRecord(given.corpus.digest, len(given.corpus)),
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
