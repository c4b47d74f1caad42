"""A teacher that is a model folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emb.model.embedding_model import EmbeddingModel
from emb.similarity import Vectors
from emb.teachers.protocol import TeacherIdentity
from emb.tokens import Cut, count_cut, tell

_LONGER = "--set capture.max_length=N reads more, as far as the teacher can"


class FolderTeacher:
    """A loaded model as a teacher; `cut` counts the texts that it did not read to their end."""

    def __init__(self, model: EmbeddingModel, identity: TeacherIdentity, tokens_per_batch: int = 512) -> None:
        self.model, self.identity, self.tokens_per_batch = model, identity, tokens_per_batch
        self.dim, self.normalized = model.dim, model.spec.normalize
        self.cut = Cut(0, 0, 0, model.spec.max_length)

    def prompt(self, kind: str) -> str:
        """The model's own."""
        return self.model.spec.prompt(kind)

    def embed(self, texts: Sequence[str], kind: str) -> Vectors:
        """Vectors `(texts, dim)` float32, in batches of so many tokens, longest first."""
        tokenizer, prompt = self.model.tokenizer(), self.prompt(kind)
        rows = tokenizer.encode(texts, prompt)
        self.cut += count_cut(tokenizer, texts, prompt, rows)
        found = np.empty((len(texts), self.dim), np.float32)
        for places, vectors in self.model.embed_ids(rows, tokens_per_batch=self.tokens_per_batch):
            found[places] = vectors.numpy()
        return found

    def tell_cut(self) -> None:
        """Warn where much of what was embedded was cut."""
        tell(self.cut, "texts for the teacher", _LONGER)
