"""How often texts use each token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from emb.data.corpus import Text
from emb.model.embedding_model import EmbeddingModel
from emb.tokens import Ids, Rows
from emb.vocabulary.reading import whole_rows_of
from emb.vocabulary.surgery import tokenizer_json


def token_counts(model: EmbeddingModel, texts: Sequence[Text]) -> Ids:
    """Occurrences of each id of the model's tokenizer `(ids,)` in whole texts, prompts and special tokens included."""
    return counts_of(whole_rows_of(model, texts), max(tokenizer_json(model).tokens) + 1)


def counts_of(rows: Rows, size: int) -> Ids:
    """Occurrences of each id `(size,)` in texts as token ids."""
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64), minlength=size)


def covered(rows: Rows, kept: Collection[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Of each text, whether it has no token but those in `kept`."""
    known = np.zeros(max(max(kept, default=0), _largest(rows)) + 1, bool)
    known[list(kept)] = True
    return np.asarray([bool(known[row].all()) for row in rows], bool)


def _largest(rows: Sequence[np.ndarray[Any, Any]]) -> int:
    return max((int(row.max()) for row in rows if len(row)), default=0)
