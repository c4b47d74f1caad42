"""The texts of a recipe and the teacher's vectors for them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from emb.artifact.fingerprints import weights_hash
from emb.data.corpus import Columns, Corpus, Text, read_corpus
from emb.data.default_corpus import default_corpus
from emb.data.documents import Document, read_documents
from emb.data.pseudo_queries import PseudoQuery
from emb.data.query_corpus import as_queries, fitted_corpus
from emb.distill.cutting import cut_from
from emb.machine import device, resolve_dtype
from emb.model.embedding_model import EmbeddingModel, ModelSpec, load_model
from emb.progress import note
from emb.recipes.recipe import Recipe
from emb.similarity import Vectors
from emb.teachers.cache import TeacherEmbeddings
from emb.teachers.capture import cached, capture, recorded
from emb.teachers.folder import FolderTeacher
from emb.teachers.protocol import Teacher as VectorTeacher
from emb.teachers.protocol import TeacherIdentity
from emb.teachers.registry import Resolved

_TIMED = 64  # texts of each kind that a teacher is timed on
_ANY_LENGTH = 32768  # tokens: how far such a teacher reads is its own affair


@dataclasses.dataclass(frozen=True)
class Targets:
    """The teacher as training sees it: its facts, and its vectors for both parts of the corpus."""

    fingerprint: str
    weights: str
    spec: ModelSpec
    train: TeacherEmbeddings
    held_out: TeacherEmbeddings


_Captured = tuple[TeacherIdentity, ModelSpec, TeacherEmbeddings]


def corpus_of(recipe: Recipe, cut: Sequence[PseudoQuery] | None = None) -> Corpus:
    """The texts of a recipe; `cut` are the pseudo-queries of its documents where they are known already."""
    data, seed = recipe.data, recipe.training.seed
    columns = Columns(data.field, data.kind_field)
    given = read_corpus(data.sources, columns, data.limit, data.parallel) if data.sources or data.parallel else None
    if data.documents:
        cut = cut_from(documents_of(recipe), recipe) if cut is None else cut
        corpus = fitted_corpus(cut, given, mix=data.mix, seed=seed)
    else:
        if given is None:
            note("no --data and no --for: the documentation on this machine is the corpus, which is for trying only")
        corpus = given or default_corpus(data.limit)
        corpus = as_queries(corpus, seed) if data.as_queries else corpus
    queries = sum(item.kind == "query" for item in corpus.texts)
    translations = sum(item.source_text is not None for item in corpus.texts)
    beside = f", {translations:,} translations" if translations else ""
    note(f"corpus: {len(corpus):,} texts, {queries:,} of them queries{beside}")
    return corpus


def documents_of(recipe: Recipe) -> list[Document]:
    """The documents that will be searched, if the recipe names any."""
    return read_documents(recipe.data.documents, recipe.data.field) if recipe.data.documents else []


def targets_of(recipe: Recipe, teacher: Resolved, train: Corpus, held_out: Corpus, trust_remote_code: bool) -> Targets:
    """The teacher's vectors; it leaves memory before training begins, and is not opened where all are cached."""
    texts = [*train.texts, *held_out.texts]
    if teacher.vectors is not None:
        identity, spec, vectors = teacher.vectors.identity, _spec_of(teacher.vectors), capture(teacher.vectors, texts)
    else:
        weights = weights_hash(teacher.path)
        found = _cached(recipe, teacher, weights, texts)
        identity, spec, vectors = found or _captured(recipe, teacher, weights, texts, trust_remote_code)
    parts = vectors.places[: len(train)], vectors.places[len(train) :]
    first, second = (TeacherEmbeddings(vectors.shards, part) for part in parts)
    return Targets(identity.fingerprint, identity.weights, spec, first, second)


def _spec_of(teacher: VectorTeacher) -> ModelSpec:
    """What a student takes over from a teacher of which there is nothing but vectors."""
    return ModelSpec(
        normalize=teacher.normalized, max_length=_ANY_LENGTH, similarity="cosine" if teacher.normalized else "dot"
    )


def _cached(recipe: Recipe, teacher: Resolved, weights: str, texts: Sequence[Text]) -> _Captured | None:
    """What the cache has of this very folder, whose files hash to `weights`, if it has all of `texts`."""
    dtype, fields = _dtype_name(recipe), {field.name for field in dataclasses.fields(ModelSpec)}
    for fingerprint, facts in recorded():
        known = facts.get("spec", {}).keys() == fields  # another version of this package may know others
        if not known or facts.get("weights") != weights or facts.get("dtype") != dtype:
            continue
        spec = ModelSpec(**facts["spec"])
        entry = teacher.teacher.prompts if teacher.teacher else None
        same_prompts = facts.get("own_prompts") or entry is None or dict(entry) == spec.prompts
        if (
            same_prompts
            and facts["max_length"] == min(spec.max_length, recipe.capture.max_length)
            and (vectors := cached(fingerprint, texts)) is not None
        ):
            note(f"teacher: all {len(texts):,} texts are cached")
            return TeacherIdentity(weights, facts["max_length"], dtype), spec, vectors
    return None


def _captured(
    recipe: Recipe, teacher: Resolved, weights: str, texts: Sequence[Text], trust_remote_code: bool
) -> _Captured:
    """What the loaded teacher gives."""
    dtype = resolve_dtype(recipe.capture.dtype)
    model = load_model(teacher.path, dtype=dtype, trust_remote_code=trust_remote_code).to(device())
    spec = teacher_spec(model.spec, teacher)
    facts = {"spec": dataclasses.asdict(spec), "own_prompts": any(model.spec.prompts.values())}
    model.spec = dataclasses.replace(spec, max_length=min(spec.max_length, recipe.capture.max_length))
    identity = TeacherIdentity(weights, model.spec.max_length, _dtype_name(recipe))
    folder = FolderTeacher(model, identity, recipe.capture.tokens_per_batch)
    vectors = capture(folder, texts, facts)
    folder.tell_cut()
    return identity, spec, vectors


def _dtype_name(recipe: Recipe) -> str:
    return str(resolve_dtype(recipe.capture.dtype)).removeprefix("torch.")


def teacher_spec(spec: ModelSpec, teacher: Resolved) -> ModelSpec:
    """The folder's own facts; prompts the folder lacks come from the registry."""
    if any(spec.prompts.values()) or teacher.teacher is None:
        return spec
    return dataclasses.replace(spec, prompts=dict(teacher.teacher.prompts))


def document_vectors(recipe: Recipe, teacher: Resolved, whole: Corpus, trust_remote_code: bool) -> Vectors:
    """The teacher's vectors of whole documents `(documents, dim)`, read as far as the teacher reads."""
    far = recipe.model_copy(update={"capture": recipe.capture.model_copy(update={"max_length": _ANY_LENGTH})})
    found = targets_of(far, teacher, whole, Corpus([]), trust_remote_code).train
    return found.take(np.arange(len(found)))


def teacher_seconds(
    recipe: Recipe, teacher: Resolved, texts: Sequence[Text], documents: Sequence[Document], trust_remote_code: bool
) -> float:
    """Seconds that the teacher needs for all these on this machine, were none cached, from a few of each."""
    if teacher.vectors is not None:
        return 0.0  # what a file or a function needs is not known before it is asked
    model = load_model(teacher.path, dtype=resolve_dtype(recipe.capture.dtype), trust_remote_code=trust_remote_code).to(
        device()
    )
    budget, window = recipe.capture.tokens_per_batch, model.spec.max_length
    whole = [each.whole for each in documents]
    read = [text for _, text in dict.fromkeys((item.kind, item.teacher_text) for item in texts)]
    found = 0.0
    for group, limit in ((read, recipe.capture.max_length), (whole, window)):
        model.spec = dataclasses.replace(model.spec, max_length=min(window, limit))
        rows = model.tokenizer().encode(group[:: max(1, len(group) // _TIMED)])
        began = time.monotonic()
        for _ in model.embed_ids(rows, tokens_per_batch=budget):
            pass
        found += (time.monotonic() - began) * len(group) / max(len(rows), 1)
    return found


def tokenise(student: EmbeddingModel, texts: Sequence[Text], max_length: int) -> list[Any]:
    """Token ids of each text behind the prompt of its kind, at most `max_length` of them."""
    # Cut where the teacher stopped reading: its vector says nothing about the rest.
    tokenizer = student.tokenizer().cut_at(max_length)
    return tokenizer.encode([item.text for item in texts], [student.spec.prompt(item.kind) for item in texts])
