"""What a model makes of texts: token ids, and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from emb.data.corpus import Text
from emb.model.embedding_model import EmbeddingModel
from emb.similarity import Vectors
from emb.tokens import Rows, TextTokenizer


@dataclass(frozen=True)
class Reading:
    """Texts with their token ids and vectors `(texts, dim)`, as one model read them at one time."""

    texts: Sequence[Text]
    rows: Rows
    vectors: Vectors

    @property
    def tokens(self) -> int:
        """How many tokens all texts have."""
        return sum(len(row) for row in self.rows)

    def first(self, count: int) -> Reading:
        """So many of the texts at most."""
        return Reading(self.texts[:count], self.rows[:count], self.vectors[:count])


def read(model: EmbeddingModel, texts: Sequence[Text]) -> Reading:
    """`texts` as `model` reads them now, each behind the prompt of its kind."""
    rows = rows_of(model, texts)
    return Reading(texts, rows, vectors_of(model, rows))


def rows_of(model: EmbeddingModel, texts: Sequence[Text]) -> Rows:
    """Token ids of `texts`, special tokens and prompts included."""
    return model.tokenizer().encode([each.text for each in texts], [model.spec.prompt(each.kind) for each in texts])


def rows_by(model: EmbeddingModel, tokenizer: Tokenizer, texts: Sequence[Text]) -> Rows:
    """The same by another `tokenizer`, which cuts where the model does."""
    spec = model.spec
    reader = TextTokenizer(
        tokenizer, max_length=spec.max_length, pad_id=0, lowercase=spec.lowercase, side=spec.truncation_side
    )
    return reader.encode([each.text for each in texts], [spec.prompt(each.kind) for each in texts])


def written(model: EmbeddingModel, texts: Sequence[Text]) -> list[str]:
    """`texts` as the model's tokenizer gets them: behind their prompts, in the case in which they are read."""
    return model.tokenizer().written([each.text for each in texts], [model.spec.prompt(each.kind) for each in texts])


def whole_rows_of(model: EmbeddingModel, texts: Sequence[Text]) -> Rows:
    """The same of whole texts, however far the model reads: where documents are cut, words are words all the same."""
    tokenizer = model.tokenizer()
    tokenizer.tokenizer.no_truncation()
    return tokenizer.encode([each.text for each in texts], [model.spec.prompt(each.kind) for each in texts])


def vectors_of(model: EmbeddingModel, rows: Rows) -> Vectors:
    """The model's own vectors `(texts, dim)` of token ids."""
    found = np.empty((len(rows), model.dim), np.float32)
    for places, vectors in model.embed_ids(rows):
        found[places] = vectors.numpy()
    return found
