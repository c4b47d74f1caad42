"""Indexes built of texts whose vectors are made from their hashes: the same whatever is encoded beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from encoding import dying_at
from tokenizers import Tokenizer, models, pre_tokenizers

from emb.runtime.encoder import Encoder
from emb.search.index import Indexed, build
from emb.search.index.description import EncoderRecord
from emb.search.index.documents import Columns
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with
from emb.similarity import Vectors, unit
from emb.tokens import Cut, Ids, TextTokenizer

DIM = 32
BLOCK = 3


class Hashed(Encoder):
    """A vector for each text from its hash, near to one of eight centres; `encoded` counts texts."""

    def __init__(self, similarity: str = "cosine", normalize: bool = True, dim: int = DIM) -> None:
        inner = Tokenizer(models.WordLevel({"[UNK]": 0, **{f"w{n}": n + 1 for n in range(50)}}, unk_token="[UNK]"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = TextTokenizer(inner, max_length=16, pad_id=0)
        super().__init__(tokenizer, dim=dim, prompts={}, normalize=normalize, similarity_fn_name=similarity)
        self.encoded = 0

    def encode(self, texts: Any, *, count: Callable[[Cut], None] | None = None, **options: Any) -> Any:
        """See `Encoder`."""
        several = [texts] if isinstance(texts, str) else texts
        self.encoded += len(several)
        if count:
            count(Cut(len(several), 0, 0, self.max_length))
        found = np.stack([vector_of(text, self.dim) for text in several])
        found = unit(found) if self.normalize else found
        return found[0] if isinstance(texts, str) else found

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Not called."""
        raise AssertionError("encode() makes the vectors")


def vector_of(text: str, dim: int = DIM) -> Vectors:
    """`(dim,)` float32 of any length."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    random = np.random.default_rng(seed)
    centre = np.random.default_rng(seed % 8).standard_normal(dim)
    return np.asarray((centre + random.standard_normal(dim)) * random.uniform(0.5, 2), np.float32)


def record(encoder: Encoder, fingerprint: str = "f") -> EncoderRecord:
    """What an index notes of `encoder`."""
    return EncoderRecord(
        "model",
        fingerprint,
        [fingerprint],
        encoder.dim,
        encoder.normalize,
        encoder.similarity_fn_name,
        {},
        encoder.max_length,
    )


def write(path: Path, documents: Mapping[str, Any]) -> Path:
    """Documents by their ids, each a text or a record."""
    records = [{"id": name, **({"text": each} if isinstance(each, str) else each)} for name, each in documents.items()]
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


def indexed(
    folder: Path,
    documents: Mapping[str, Any],
    encoder: Encoder | None = None,
    *,
    delete: Sequence[str] = (),
    **layout: Any,
) -> Indexed:
    """Bring the index at `folder` up to date with `documents`."""
    encoder = encoder or Hashed()
    source = [str(write(folder.with_name(f"{folder.name}.jsonl"), documents))] if documents else []
    choices = Choices(source, Columns(), delete, layout)
    return index_with(folder, choices, encoder if documents else None, record(encoder) if documents else None)


def texts(count: int, first: int = 0) -> dict[str, str]:
    """So many documents."""
    return {f"d{number:04d}": f"w{number % 50} text {number}" for number in range(first, first + count)}


def ranking(folder: Path, query: str = "w1 query", k: int = 10, **options: Any) -> list[tuple[str, float]]:
    """Ids and scores of the nearest."""
    with Index(folder) as index:
        dim, similarity = index.description.encoder.dim, index.description.encoder.similarity
        encoder = Hashed(similarity, index.description.encoder.normalize, dim)
        return [(hit.id, hit.score) for hit in index.search_vector(encoder.encode(query), k, **options)]


def index_and_die(folder: Path, documents: Mapping[str, Any], at: tuple[str, str, int] | None, **layout: Any) -> None:
    """Build in small blocks; with `at` (module, function, number) the process kills itself at that call."""
    build.BLOCK = BLOCK
    if at:
        dying_at(*at)
    indexed(folder, documents, **layout)
