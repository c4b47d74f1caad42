"""What every student of a run is trained from: its texts, and the teacher's vectors of them and of the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emb.data.corpus import Corpus, Text, split
from emb.data.documents import Document
from emb.data.pseudo_queries import PseudoQuery
from emb.distill.cutting import cut_from, with_cuts
from emb.distill.query_encoder import with_epochs
from emb.distill.retention import KnownItems, known_items
from emb.distill.targets import Targets, corpus_of, document_vectors, documents_of, targets_of, tokenise
from emb.distill.train import Split
from emb.model.embedding_model import EmbeddingModel
from emb.recipes.recipe import Recipe
from emb.similarity import Vectors
from emb.teachers.registry import Resolved


@dataclass(frozen=True)
class TrainingTexts:
    """All texts of a run, in two parts, and where they come from: the documents that will be searched, if it names any,
    and what was cut from them.
    """

    corpus: Corpus
    train: Corpus
    held_out: Corpus
    documents: list[Document]
    queries: list[PseudoQuery]


@dataclass(frozen=True)
class Searched:
    """Documents that will be searched, what was cut from them, and the teacher's vectors `(documents, dim)`."""

    documents: list[Document]
    queries: list[PseudoQuery]
    vectors: Vectors


@dataclass(frozen=True)
class Prepared:
    """The teacher, both parts of the corpus with its vectors, and, if there are documents to search in, those and the
    search that is held out.
    """

    teacher: Resolved
    corpus: Corpus
    train: Corpus
    held_out: Corpus
    targets: Targets
    search: KnownItems | None
    documents: Sequence[Document] = ()


def read_texts(recipe: Recipe) -> tuple[Recipe, TrainingTexts]:
    """The texts of a recipe, read and cut; nothing is encoded. And the recipe, with how finely they are cut and how
    often they are read where it left that open.
    """
    documents = documents_of(recipe)
    recipe = with_cuts(recipe, documents)
    cut = cut_from(documents, recipe)
    corpus = corpus_of(recipe, cut)
    source = TrainingTexts(corpus, *split(corpus, recipe.data.holdout), documents, cut)
    return with_epochs(recipe, len(source.train)), source


def searched(recipe: Recipe, teacher: Resolved, source: TrainingTexts, trust_remote_code: bool) -> Searched | None:
    """The documents with their vectors, each computed once; None where there are none."""
    if not source.documents:
        return None
    whole = Corpus([Text(each.whole) for each in source.documents])
    vectors = document_vectors(recipe, teacher, whole, trust_remote_code)
    return Searched(source.documents, source.queries, vectors)


def prepare(
    recipe: Recipe, teacher: Resolved, source: TrainingTexts, found: Searched | None, trust_remote_code: bool
) -> Prepared:
    """The teacher's vectors of all texts."""
    targets = targets_of(recipe, teacher, source.train, source.held_out, trust_remote_code)
    search = known_items(source.held_out.texts, found.queries, found.vectors) if found else None
    return Prepared(teacher, source.corpus, source.train, source.held_out, targets, search, source.documents)


def splits_of(student: EmbeddingModel, given: Prepared, max_length: int) -> tuple[Split, Split]:
    """What is trained on and what is held out, as `student` reads it."""
    train, held_out = (
        Split(tokenise(student, part.texts, max_length), vectors)
        for part, vectors in ((given.train, given.targets.train), (given.held_out, given.targets.held_out))
    )
    return train, held_out
