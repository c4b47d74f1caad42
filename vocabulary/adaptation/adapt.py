"""Adapting a model's vocabulary to texts, from its folder to another one: trim, extend, train, prove, write."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from emb.artifact.fingerprints import weights_hash
from emb.artifact.manifest import LayerDimPair
from emb.data.corpus import Text
from emb.errors import UsageError
from emb.model.embedding_model import EmbeddingModel, load_model, manifest_of
from emb.progress import note
from emb.recipes.recipe import TrainingRecipe
from emb.similarity import Vectors
from emb.teachers.cache import TeacherEmbeddings
from emb.teachers.capture import capture
from emb.teachers.folder import FolderTeacher
from emb.teachers.protocol import TeacherIdentity
from emb.teachers.registry import resolve
from emb.tokens import Ids
from emb.vocabulary.adaptation.language_step import LanguageStep, Learned, language_step
from emb.vocabulary.adaptation.options import QLORA, SELF, AdaptOptions
from emb.vocabulary.adaptation.row_distillation import distil_rows
from emb.vocabulary.choose_rows import InitScore, made_rows, write_best
from emb.vocabulary.choose_tokens import Choice
from emb.vocabulary.extend import Extended, extend
from emb.vocabulary.initialise import Ground
from emb.vocabulary.proof import (
    ExtensionProof,
    TrimProof,
    prove_extension,
    prove_trim,
)
from emb.vocabulary.reading import read, vectors_of
from emb.vocabulary.surgery import replace_vocabulary, table_of, tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.wanted import prove_tokenizer, trim_to

_MAX_TEXTS = 20_000  # that rows are trained on
DEV = 300  # held-out texts that ways of making rows are compared on


@dataclass(frozen=True)
class Adapted:
    """A model with its new vocabulary, and how that came about.

    `kept` are the former ids in the order of the new ones; behind them come the `added` tokens, which are `extended`
    by.
    """

    model: EmbeddingModel
    kept: list[int]
    added: list[str]
    trim: TrimProof | None
    extension: ExtensionProof | None
    init: str | None
    init_scores: Sequence[InitScore]
    language: LanguageStep | None = None
    extended: Extended | None = None
    choice: Choice | None = None


@dataclass(frozen=True)
class Job:
    """A model, which is changed in place, and its folder; texts in two parts, how often the first has each token; and
    what is asked.
    """

    folder: Path
    model: EmbeddingModel
    train: Sequence[Text]
    counts: Ids
    held_out: Sequence[Text]
    options: AdaptOptions
    training: TrainingRecipe
    language: TrainingRecipe
    place: Path
    trust_remote_code: bool = False


def adapt(job: Job) -> Adapted:
    """Carry out what is asked; nothing is written but checkpoints of training.

    Raises:
        GateFailed: what must hold of the result does not.
        UsageError, DataError: what is asked cannot be.
    """
    model = job.model
    learned = _learned(job, _teacher(job, model), _first(job.train)) if job.options.language else None
    found = Adapted(model, sorted(tokenizer_json(model).tokens), [], None, None, None, ())
    if job.options.trims:
        found = _trimmed(job, found)
    if job.options.extends:
        found = _extended(job, found)
    return _with_language(job, found, *learned) if learned else found


def _with_language(job: Job, found: Adapted, train: Learned, held_out: Learned) -> Adapted:
    new_ids, pairs = range(len(found.kept), len(found.kept) + len(found.added)), _pairs(job, found.model)
    known, qlora = manifest_of(job.folder), job.options.language == QLORA
    model, step = language_step(
        found.model, known, new_ids, train, held_out, pairs, job.language, job.place, qlora=qlora
    )
    return dataclasses.replace(found, model=model, language=step)


def _trimmed(job: Job, found: Adapted) -> Adapted:
    model = found.model
    before = read(model, job.held_out)
    fitted = trim_to(model, job.train, job.counts, job.options.wanted, before)
    if fitted.choice and fitted.choice.scores:
        tried = ", ".join(f"{each.way} {each.cosine:.4f}" for each in fitted.choice.scores)
        note(f"rows chosen by {tried}; {fitted.choice.way} is taken")
    proof = prove_trim(before, model, fitted.kept)
    note(
        f"{len(fitted.kept):,} of {len(found.kept):,} tokens kept; {proof.covered:.1%} of {proof.texts:,} held-out"
        f" texts have no other and encode the same; mean cosine of all {proof.cosine:.4f}"
    )
    return dataclasses.replace(found, kept=fitted.kept, trim=proof, choice=fitted.choice)


def _extended(job: Job, trimmed: Adapted) -> Adapted:
    options, model = job.options, trimmed.model
    source = tokenizer_json(model)
    assert options.add is not None
    found = extend(source, [each.text for each in job.train], options.add)
    ids = sorted(source.tokens)
    new_ids = range(len(ids), len(ids) + len(found.added))
    note(f"{len(found.added):,} new tokens, such as {', '.join(found.added[:5])}")
    before = read(model, job.held_out)
    train, held_out = _learned(job, _teacher(job, model), _with_new_tokens(job.train, found, len(source.tokens)))
    made = made_rows(options.init, _ground(model, source, found, job))
    replace_vocabulary(model, found.tokenizer, ids, torch.from_numpy(made[next(iter(made))]))
    method, scores = write_best(model, new_ids, made, before.first(DEV))
    note("untrained rows: " + ", ".join(f"{each.method} {each.cosine:.4f}" for each in scores) + f"; {method} is taken")
    parts = train.split(model), held_out.split(model)
    distil_rows(model, new_ids, *parts, _pairs(job, model), job.training, job.place)
    prove_tokenizer(source, found.tokenizer)
    extension = prove_extension(before, model, new_ids, options.min_cosine)
    note(
        f"trained rows: mean cosine {extension.cosine:.4f} to the vectors without them; held-out texts have"
        f" {extension.length_ratio:.1%} of their tokens"
    )
    return dataclasses.replace(
        trimmed, added=found.added, extension=extension, init=method, init_scores=scores, extended=found
    )


def _learned(job: Job, teacher: FolderTeacher, texts: Sequence[Text]) -> tuple[Learned, Learned]:
    """`texts` and the held-out ones, each with the teacher's vectors of them."""
    vectors = capture(teacher, [*texts, *job.held_out])
    first, second = vectors.places[: len(texts)], vectors.places[len(texts) :]
    return (
        Learned(texts, TeacherEmbeddings(vectors.shards, first)),
        Learned(job.held_out, TeacherEmbeddings(vectors.shards, second)),
    )


def _first(texts: Sequence[Text]) -> list[Text]:
    """So many of them at most, by their own hashes, whatever their order."""
    return sorted(texts, key=lambda each: hashlib.blake2b(each.text.encode()).digest())[:_MAX_TEXTS]


def _with_new_tokens(texts: Sequence[Text], found: Extended, first: int) -> list[Text]:
    """Of `texts` those that have one."""
    tokenizer = found.tokenizer.tokenizer()
    read = tokenizer.encode_batch_fast([each.text for each in texts], add_special_tokens=False)
    return _first([each for each, encoding in zip(texts, read, strict=True) if max(encoding.ids, default=0) >= first])


def _teacher(job: Job, model: EmbeddingModel) -> FolderTeacher:
    """The model itself as it is now, or the one that is named.

    Raises:
        UsageError: its vectors are of another width.
    """
    if job.options.teacher == SELF:
        state = hashlib.sha256(weights_hash(job.folder).encode())
        state.update(model.hf_tokenizer.backend_tokenizer.to_str().encode())  # a trim before changes what it reads
        return FolderTeacher(model, TeacherIdentity(state.hexdigest(), model.spec.max_length, "float32"))
    found = resolve(job.options.teacher, trust_remote_code=job.trust_remote_code)
    teacher = load_model(found.path, trust_remote_code=job.trust_remote_code)
    if teacher.dim != model.dim:
        raise UsageError(
            f"--teacher {job.options.teacher}: gives {teacher.dim} dims, the model {model.dim}",
            "name the model that this one was distilled from, or leave it out",
        )
    return FolderTeacher(teacher, TeacherIdentity(weights_hash(found.path), teacher.spec.max_length, "float32"))


def _ground(model: EmbeddingModel, source: TokenizerJson, found: Extended, job: Job) -> Ground:
    def embed(texts: Sequence[str]) -> Vectors:
        return vectors_of(model, model.tokenizer().encode(texts))

    table = table_of(model).detach().cpu().numpy()
    return Ground(source, table, found, [each.text for each in job.train], embed, job.training.seed)


def _pairs(job: Job, model: EmbeddingModel) -> list[LayerDimPair]:
    """What is trained towards: every pair that the model was distilled at, or its whole vectors."""
    manifest = manifest_of(job.folder)
    known = [each.pair for each in manifest.pairs] if manifest else []
    return known or [LayerDimPair(model.exits[-1], model.dim)]
