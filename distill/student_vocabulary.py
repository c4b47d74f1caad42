"""A student whose token table fits the texts it is trained on, before anything of it is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from emb.data.corpus import Text
from emb.distill.preparation import Prepared
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.recipes.recipe import VocabularyRecipe
from emb.similarity import Vectors
from emb.vocabulary.choose_tokens import COUNTS
from emb.vocabulary.extend import extend
from emb.vocabulary.initialise import Ground, rows_of
from emb.vocabulary.surgery import replace_vocabulary, table_of, tokenizer_json
from emb.vocabulary.usage import token_counts
from emb.vocabulary.wanted import Wanted, prove_tokenizer, trim_to


def fit_vocabulary(student: EmbeddingModel, recipe: VocabularyRecipe, given: Prepared, *, fresh: bool) -> None:
    """Trim the table of `student` to the texts and documents of a run, and extend it, in place; nothing is trained.

    Rows that are `fresh` are random: how far one is from those of its pieces says nothing.

    Raises:
        GateFailed: some text would be read as unknown that was not.
        UsageError: fewer rows are wanted than must stay, or more new tokens than the texts hold.
    """
    texts = [*given.train.texts, *(Text(each.whole) for each in given.documents)]
    before = len(tokenizer_json(student).tokens)
    kept = trim_to(student, texts, token_counts(student, texts), _wanted(recipe, fresh)).kept
    note(f"the student's vocabulary: {len(kept):,} of {before:,} tokens kept")
    if recipe.add:
        _extend(student, recipe, [each.text for each in texts])


def _wanted(recipe: VocabularyRecipe, fresh: bool) -> Wanted:
    keep = Path(recipe.keep) if recipe.keep else None
    if recipe.rows is None:
        return Wanted(recipe.keep_coverage, tuple(recipe.keep_scripts), keep)
    return Wanted(None, tuple(recipe.keep_scripts), keep, recipe.rows, COUNTS if fresh else recipe.choose)


def _extend(student: EmbeddingModel, recipe: VocabularyRecipe, texts: list[str]) -> None:
    source = tokenizer_json(student)
    found = extend(source, texts, recipe.add)
    table = table_of(student).detach().cpu().numpy()
    ground = Ground(source, table, found, texts, _unread)
    replace_vocabulary(student, found.tokenizer, sorted(source.tokens), torch.from_numpy(rows_of(recipe.init, ground)))
    prove_tokenizer(source, found.tokenizer)
    note(f"{len(found.added):,} new tokens, such as {', '.join(found.added[:5])}")


def _unread(_: object) -> Vectors:
    raise TypeError("no way of a recipe makes rows from vectors: there is no projection yet")
