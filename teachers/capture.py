"""The teacher: who it is, and its vectors for a corpus, each text encoded once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emb.data.corpus import KINDS, Text
from emb.errors import TeacherError
from emb.files import cache_root, read_json, write_json
from emb.model.embedding_model import EmbeddingModel
from emb.progress import bar, note
from emb.similarity import first_not_finite
from emb.teachers.cache import TeacherCache, TeacherEmbeddings, row_key
from emb.tokens import count_cut, tell

FACTS = "teacher.json"
_LONGER = "--set capture.max_length=N reads more, as far as the teacher can"
_FLUSH_TEXTS = 8192
_FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class TeacherIdentity:
    """What a teacher's vectors depend on; two equal identities give equal vectors."""

    weights: str
    max_length: int
    dtype: str

    @property
    def fingerprint(self) -> str:
        """Short hash that names the cache folder."""
        content = json.dumps([self.weights, self.max_length, self.dtype])
        return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()


def capture(teacher: EmbeddingModel, identity: TeacherIdentity, texts: Sequence[Text], *, tokens_per_batch: int = 512) -> TeacherEmbeddings:
    """Vectors of `texts`, each behind the prompt of its kind; only those not cached are computed.

    Raises:
        TeacherError: the teacher returned NaN or infinity; nothing of that batch is stored.
        DiskError: no room; what was stored before stays and is not computed again.
    """
    folder = cache_root() / "teacher" / identity.fingerprint
    cache = TeacherCache(folder, teacher.dim)
    keys = [row_key(teacher.spec.prompt(item.kind), item.text) for item in texts]
    if cache.missing(keys):
        with cache.lock():
            write_json(folder / FACTS, vars(identity) | {"dim": teacher.dim, "prompts": {kind: teacher.spec.prompt(kind) for kind in KINDS}})
            _fill(cache, teacher, texts, keys, tokens_per_batch)
    return cache.view(keys)


def cached(fingerprint: str, texts: Sequence[Text]) -> TeacherEmbeddings | None:
    """Vectors of `texts` that `capture` left behind, found without the teacher; None if any of them is missing."""
    folder = cache_root() / "teacher" / fingerprint
    if not (folder / FACTS).is_file():
        return None
    facts = read_json(folder / FACTS)
    cache = TeacherCache(folder, int(facts["dim"]))
    keys = [row_key(facts["prompts"].get(item.kind, ""), item.text) for item in texts]
    return None if cache.missing(keys) else cache.view(keys)


def _fill(cache: TeacherCache, teacher: EmbeddingModel, texts: Sequence[Text], keys: Sequence[bytes], tokens_per_batch: int) -> None:
    todo = cache.missing(keys)
    note(f"teacher: {len(todo):,} of {len(texts):,} texts to encode, the others are cached")
    given, prompts = [texts[i].text for i in todo], [teacher.spec.prompt(texts[i].kind) for i in todo]
    rows = teacher.tokenizer().encode(given, prompts)
    tell(count_cut(teacher.tokenizer(), given, prompts, rows), "texts for the teacher", _LONGER)
    pending_keys: list[bytes] = []
    pending: list[np.ndarray[tuple[int, int], np.dtype[np.float16]]] = []
    flushed = time.monotonic()
    # The unit is the token: texts come longest first, and a bar that counts texts would crawl.
    with bar("teacher vectors (tokens)", sum(len(row) for row in rows)) as advance:
        for batch, vectors in teacher.embed_ids(rows, tokens_per_batch=tokens_per_batch):
            half = vectors.half()  # beyond 65504 it is infinity
            _check_finite(half, [todo[i] for i in batch], texts)
            pending_keys += [keys[todo[i]] for i in batch]
            pending.append(half.numpy())
            advance(sum(len(rows[i]) for i in batch))
            if len(pending_keys) >= _FLUSH_TEXTS or time.monotonic() - flushed > _FLUSH_SECONDS:
                cache.append(pending_keys, np.concatenate(pending))
                pending_keys, pending, flushed = [], [], time.monotonic()
    if pending_keys:
        cache.append(pending_keys, np.concatenate(pending))


def _check_finite(vectors: torch.Tensor, places: Sequence[int], texts: Sequence[Text]) -> None:
    bad = first_not_finite(vectors.numpy())
    if bad is not None:
        place = places[bad]
        raise TeacherError(
            f"the teacher returned NaN or infinity for: {texts[place].text[:80]!r} (text {place + 1:,} of {len(texts):,})",
            "try --set capture.dtype=fp32, and check the teacher's weights",
        )
