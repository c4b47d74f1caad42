"""What every student of a run is trained from: its texts, and the teacher's vectors of them and of the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emb.data.corpus import Corpus, Text, split
from emb.data.documents import Document
from emb.data.pseudo_queries import Cuts, PseudoQuery, pseudo_queries
from emb.distill.retention import KnownItems, known_items
from emb.distill.targets import Targets, corpus_of, document_vectors, documents_of, targets_of, tokenise
from emb.distill.train import Split
from emb.model.embedding_model import EmbeddingModel
from emb.recipes.recipe import Recipe
from emb.similarity import Vectors
from emb.teachers.registry import Resolved


@dataclass(frozen=True)
class Searched:
    """The documents that will be searched, what was cut from them, and the teacher's vectors `(documents, dim)`."""

    documents: list[Document]
    queries: list[PseudoQuery]
    vectors: Vectors


@dataclass(frozen=True)
class Prepared:
    """The teacher, both parts of the corpus with its vectors, and the search that is held out, if there are documents
    to search in.
    """

    teacher: Resolved
    corpus: Corpus
    train: Corpus
    held_out: Corpus
    targets: Targets
    search: KnownItems | None


def searched(recipe: Recipe, teacher: Resolved, trust_remote_code: bool) -> Searched | None:
    """The documents of a recipe, read, cut and encoded once; None where it names none."""
    documents = documents_of(recipe)
    if not documents:
        return None
    cuts = pseudo_queries(documents, Cuts(**recipe.data.cuts.model_dump()), recipe.training.seed)
    whole = Corpus([Text(each.whole) for each in documents])
    return Searched(documents, cuts, document_vectors(recipe, teacher, whole, trust_remote_code))


def texts_of(recipe: Recipe, found: Searched | None) -> tuple[Corpus, Corpus, Corpus]:
    """All texts of a recipe, those to train on, and those held out."""
    corpus = corpus_of(recipe, found.queries if found else None)
    return (corpus, *split(corpus, recipe.data.holdout))


def prepare(
    recipe: Recipe,
    teacher: Resolved,
    texts: tuple[Corpus, Corpus, Corpus],
    found: Searched | None,
    trust_remote_code: bool,
) -> Prepared:
    """The teacher's vectors of all `texts`, which are those of `texts_of`."""
    corpus, train, held_out = texts
    targets = targets_of(recipe, teacher, train, held_out, trust_remote_code)
    return Prepared(teacher, corpus, train, held_out, targets, _search(held_out.texts, found))


def splits_of(student: EmbeddingModel, given: Prepared, max_length: int) -> tuple[Split, Split]:
    """What is trained on and what is held out, as `student` reads it."""
    train, held_out = (
        Split(tokenise(student, part.texts, max_length), vectors)
        for part, vectors in ((given.train, given.targets.train), (given.held_out, given.targets.held_out))
    )
    return train, held_out


def _search(held_out: Sequence[Text], found: Searched | None) -> KnownItems | None:
    return known_items(held_out, found.queries, found.vectors) if found else None
