"""An encoder that knows some texts by heart: those of the sample need not be encoded twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emb.runtime.encoder import Encoder
from emb.similarity import NotFiniteError, Vectors
from emb.tokens import Cut, Ids


class Remembering(Encoder):
    """`inner`, and vectors `(texts, dim)` of documents that it has encoded already."""

    def __init__(self, inner: Encoder, texts: Sequence[str], vectors: Vectors) -> None:
        super().__init__(
            inner.tokenizer,
            dim=inner.dim,
            prompts=inner.prompts,
            normalize=inner.normalize,
            similarity_fn_name=inner.similarity_fn_name,
        )
        self.inner, self.known = inner, dict(zip(texts, vectors, strict=True))

    def encode(self, texts: Any, *, count: Callable[[Cut], None] | None = None, **options: Any) -> Any:
        """See `Encoder`; for lists of documents, of queries as `inner` does."""
        if options.get("kind", "document") != "document":
            return self.inner.encode(texts, count=count, **options)
        new = [row for row, text in enumerate(texts) if text not in self.known]
        found = iter(self._encoded([texts[row] for row in new], new, count=count, **options)) if new else iter(())
        return np.stack([self.known[text] if text in self.known else next(found) for text in texts])

    def _encoded(self, texts: Sequence[str], rows: Sequence[int], **options: Any) -> Vectors:
        try:
            found: Vectors = self.inner.encode(texts, **options)
        except NotFiniteError as error:
            raise NotFiniteError(rows[error.row], error.text) from None
        return found

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """As `inner` does."""
        return self.inner.run(input_ids, attention_mask)
