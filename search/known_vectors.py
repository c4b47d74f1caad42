"""Vectors of documents that distilling has left in the cache: what a teacher has read once it need not read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.artifact.fingerprints import weights_hash
from emb.files import cache_root
from emb.progress import note
from emb.runtime.encoder import ArtifactEncoder, Encoder
from emb.similarity import NotFiniteError, Vectors, unit
from emb.teachers.cache import TeacherCache, row_key
from emb.teachers.capture import recorded
from emb.tokens import Ids, count_cut

if TYPE_CHECKING:
    from emb.tokens import Cut

_EXACTER = ("float32", "float16", "bfloat16")  # what a teacher computed in, the best first


class KnownVectors(Encoder):
    """A documents' encoder that looks into the cache first.

    What lies there was computed in 32 or 16 bits, as `dtype` says, and is kept in 16: cosines to what the encoder
    gives stay above 0.999.
    """

    def __init__(self, encoder: Encoder, cache: TeacherCache, dtype: str) -> None:
        super().__init__(
            encoder.tokenizer,
            dim=encoder.dim,
            prompts=encoder.prompts,
            normalize=encoder.normalize,
            similarity_fn_name=encoder.similarity_fn_name,
        )
        self.encoder, self.cache, self.dtype = encoder, cache, dtype
        self.taken = 0

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """The encoder's own."""
        return self.encoder.run(input_ids, attention_mask)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        kind: str = "document",
        count: Callable[[Cut], None] | None = None,
        **options: Any,
    ) -> Any:
        """As `Encoder.encode`; other options than a count and a bar of progress leave the cache aside."""
        if isinstance(texts, str) or options.keys() - {"show_progress_bar"}:
            return self.encoder.encode(texts, kind=kind, count=count, **options)
        keys = [row_key(self.prompt(kind), text) for text in texts]
        known = [row for row, key in enumerate(keys) if key in self.cache.index]
        left = sorted(set(range(len(keys))) - set(known))
        found = np.empty((len(keys), self.dim), np.float32)
        if known:
            vectors = self.cache.view([keys[row] for row in known]).take(range(len(known)))
            found[known] = unit(vectors) if self.normalize else vectors
        if left:
            found[left] = self._encoded([texts[row] for row in left], left, kind, options)
        if count:
            prompt = self.prompt(kind)
            count(count_cut(self.tokenizer, texts, prompt, self.tokenizer.encode(texts, prompt)))
        self.taken += len(known)
        return found

    def _encoded(self, texts: Sequence[str], rows: Sequence[int], kind: str, options: dict[str, Any]) -> Vectors:
        try:
            found: Vectors = self.encoder.encode(texts, kind=kind, **options)
        except NotFiniteError as error:
            raise NotFiniteError(rows[error.row], error.text) from None
        return found

    def tell(self) -> None:
        """Say how much of what was encoded came from the cache."""
        if self.taken:
            note(f"{self.taken:,} vectors come from the cache, where they were computed in {self.dtype}")


def with_known_vectors(encoder: Encoder, folder: Path) -> Encoder:
    """The encoder of `folder`, looking into the cache where that holds vectors of these very weights, read as far and
    behind the same prompt; otherwise the encoder itself.
    """
    if isinstance(encoder, ArtifactEncoder):
        return encoder  # what an exported file gives is its own, in int8 above all
    wanted = {"weights": weights_hash(folder), "max_length": encoder.max_length, "dim": encoder.dim}
    found = [
        (fingerprint, str(facts["dtype"]))
        for fingerprint, facts in recorded()
        if wanted.items() <= facts.items()
        and facts.get("dtype") in _EXACTER
        and facts["prompts"]["document"] == encoder.prompt("document")
        and facts.get("spec", {}).get("normalize") == encoder.normalize
    ]
    if not found:
        return encoder
    fingerprint, dtype = min(found, key=lambda each: _EXACTER.index(each[1]))
    return KnownVectors(encoder, TeacherCache(cache_root() / "teacher" / fingerprint, encoder.dim), dtype)
