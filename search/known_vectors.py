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
    gives stay above 0.999. A cache of texts that were read up to fewer tokens serves those that have no more.
    """

    def __init__(self, encoder: Encoder, caches: Sequence[tuple[TeacherCache, int]], dtype: str) -> None:
        """`caches` with the tokens that their texts were read up to, the one to look into first in front."""
        super().__init__(
            encoder.tokenizer,
            dim=encoder.dim,
            prompts=encoder.prompts,
            normalize=encoder.normalize,
            similarity_fn_name=encoder.similarity_fn_name,
        )
        self.encoder, self.caches, self.dtype = encoder, caches, dtype
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
        left = list(range(len(keys)))
        found = np.empty((len(keys), self.dim), np.float32)
        for cache, tokens in self.caches:
            known = self._whole([row for row in left if keys[row] in cache.index], texts, kind, tokens)
            if known:
                vectors = cache.view([keys[row] for row in known]).take(range(len(known)))
                found[known] = unit(vectors) if self.normalize else vectors
            left = sorted(set(left) - set(known))
        if left:
            found[left] = self._encoded([texts[row] for row in left], left, kind, options)
        if count:
            prompt = self.prompt(kind)
            count(count_cut(self.tokenizer, texts, prompt, self.tokenizer.encode(texts, prompt)))
        self.taken += len(keys) - len(left)
        return found

    def _whole(self, rows: list[int], texts: Sequence[str], kind: str, tokens: int) -> list[int]:
        """Those of `rows` whose texts are read as far in so many tokens as the encoder reads them."""
        if tokens >= self.max_length:
            return rows
        read = self.tokenizer.encode([texts[row] for row in rows], self.prompt(kind))
        return [row for row, ids in zip(rows, read, strict=True) if len(ids) <= tokens]

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
    """The encoder of `folder`, looking into the cache where that holds vectors of these very weights behind the same
    prompt; otherwise the encoder itself. Where some were read as far as the encoder reads, these go first.
    """
    if isinstance(encoder, ArtifactEncoder):
        return encoder  # what an exported file gives is its own, in int8 above all
    found = [
        (facts["max_length"], str(facts["dtype"]), fingerprint)
        for fingerprint, facts in recorded()
        if _serves(facts, encoder, weights_hash(folder))
    ]
    if not found:
        return encoder
    dtype = min((dtype for _, dtype, _ in found), key=_EXACTER.index)
    longest = sorted(((tokens, name) for tokens, each, name in found if each == dtype), reverse=True)
    caches = [(TeacherCache(cache_root() / "teacher" / name, encoder.dim), tokens) for tokens, name in longest]
    return KnownVectors(encoder, caches, dtype)


def _serves(facts: dict[str, Any], encoder: Encoder, weights: str) -> bool:
    return (
        {"weights": weights, "dim": encoder.dim}.items() <= facts.items()
        and facts.get("max_length", 0) <= encoder.max_length
        and facts.get("dtype") in _EXACTER
        and facts["prompts"]["document"] == encoder.prompt("document")
        and facts.get("spec", {}).get("normalize") == encoder.normalize
    )
