"""A teacher's vectors for a corpus, each computed once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emb.data.corpus import KINDS, Text
from emb.errors import EmbError, TeacherError
from emb.files import cache_root, read_json, write_json
from emb.progress import bar, note
from emb.similarity import Vectors, first_not_finite
from emb.teachers.cache import TeacherCache, TeacherEmbeddings, row_key
from emb.teachers.protocol import Teacher, TeacherIdentity

FACTS = "teacher.json"
_FLUSH_TEXTS = 8192
_FIRST_TEXTS = 64
_CHUNK_SECONDS = 15.0  # of a teacher's time are lost at most where the process is killed


def capture(teacher: Teacher, texts: Sequence[Text], facts: Mapping[str, Any] | None = None) -> TeacherEmbeddings:
    """Vectors of `texts`, each as its kind; only those not cached are computed. `facts` are noted beside them.

    A translation has the vector of the text that it translates.

    Raises:
        TeacherError: the teacher returned NaN or infinity; nothing of that part is stored.
        DiskError: no room; what was stored before stays and is not computed again.
    """
    folder = cache_root() / "teacher" / teacher.identity.fingerprint
    cache = TeacherCache(folder, teacher.dim)
    keys = [row_key(teacher.prompt(item.kind), item.teacher_text) for item in texts]
    missing = bool(cache.missing(keys))
    if missing or (facts and not facts.items() <= _facts(folder).items()):
        with cache.lock():
            known = vars(teacher.identity) | {
                "dim": teacher.dim,
                "prompts": {kind: teacher.prompt(kind) for kind in KINDS},
            }
            write_json(folder / FACTS, _facts(folder) | known | dict(facts or {}))
            if missing:
                _fill(cache, teacher, texts, keys)
    return cache.view(keys)


def _facts(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / FACTS)) if (folder / FACTS).is_file() else {}


def cached(fingerprint: str, texts: Sequence[Text]) -> TeacherEmbeddings | None:
    """Vectors of `texts` that `capture` left behind, found without the teacher; None if any of them is missing."""
    folder = cache_root() / "teacher" / fingerprint
    if not (folder / FACTS).is_file():
        return None
    facts = read_json(folder / FACTS)
    cache = TeacherCache(folder, int(facts["dim"]))
    keys = [row_key(facts["prompts"].get(item.kind, ""), item.teacher_text) for item in texts]
    return None if cache.missing(keys) else cache.view(keys)


def recorded() -> Iterator[tuple[str, dict[str, Any]]]:
    """Fingerprint and facts of every teacher whose vectors are cached here; what cannot be read tells of none."""
    for path in sorted((cache_root() / "teacher").glob(f"*/{FACTS}")):
        with contextlib.suppress(EmbError, OSError):
            yield path.parent.name, dict(read_json(path))


def move_cached(weights: str, to_weights: str, rotation: Vectors, texts: Sequence[Text] | None = None) -> int:
    """Give the teacher `to_weights`, whose vectors are those of the teacher `weights` rotated, what is cached for that
    one, so that nothing is encoded again; returns how many vectors.

    Of `texts` alone, where they are given; what is there already is not written again.
    """
    count = 0
    for fingerprint, facts in recorded():
        if facts.get("weights") != weights:
            continue
        old = TeacherCache(cache_root() / "teacher" / fingerprint, int(facts["dim"]))
        identity = TeacherIdentity(to_weights, facts["max_length"], facts["dtype"])
        folder = cache_root() / "teacher" / identity.fingerprint
        new = TeacherCache(folder, old.dim)
        with new.lock():
            write_json(folder / FACTS, facts | vars(identity))
            wanted = None if texts is None else _keys(facts["prompts"], texts)
            for shard in old.shards:
                keys = [key.tobytes() for key in shard["key"]]
                rows = [
                    row for row, key in enumerate(keys) if key not in new.index and (wanted is None or key in wanted)
                ]
                if rows:
                    new.append([keys[row] for row in rows], shard["vector"][rows].astype(np.float32) @ rotation.T)
                count += len(rows)
    return count


def _keys(prompts: Mapping[str, str], texts: Sequence[Text]) -> set[bytes]:
    return {row_key(prompts.get(item.kind, ""), item.teacher_text) for item in texts}


def _fill(cache: TeacherCache, teacher: Teacher, texts: Sequence[Text], keys: Sequence[bytes]) -> None:
    # Longest first, so that any lack of memory comes at once.
    todo = sorted(cache.missing(keys), key=lambda index: (texts[index].kind, -len(texts[index].teacher_text)))
    every = len(set(keys))
    cached = ", the others are cached" if len(todo) < every else ""
    note(f"teacher: {len(todo):,} of {every:,} texts to encode{cached}")
    # The unit is the character: a bar that counts texts would crawl at first.
    with bar("teacher vectors (characters)", sum(len(texts[index].teacher_text) for index in todo)) as advance:
        for chunk in _chunks(todo, texts):
            vectors = teacher.embed([texts[index].teacher_text for index in chunk], texts[chunk[0]].kind)
            with np.errstate(over="ignore"):
                half = vectors.astype(np.float16)  # beyond 65504 it is infinity
            _check_finite(half, chunk, texts)
            cache.append([keys[index] for index in chunk], half)
            advance(sum(len(texts[index].teacher_text) for index in chunk))


def _chunks(todo: Sequence[int], texts: Sequence[Text]) -> Iterator[Sequence[int]]:
    """Parts of one kind each, of as many texts as the teacher takes seconds for."""
    start, size = 0, min(_FIRST_TEXTS, _FLUSH_TEXTS)
    while start < len(todo):
        chunk = [index for index in todo[start : start + size] if texts[index].kind == texts[todo[start]].kind]
        began = time.monotonic()
        yield chunk
        start += len(chunk)
        spent = time.monotonic() - began
        if spent < _CHUNK_SECONDS / 2:
            size = min(_FLUSH_TEXTS, 2 * size)
        elif spent > 2 * _CHUNK_SECONDS:
            size = max(1, size // 2)


def _check_finite(vectors: Vectors, places: Sequence[int], texts: Sequence[Text]) -> None:
    bad = first_not_finite(vectors)
    if bad is not None:
        place = places[bad]
        raise TeacherError(
            f"the teacher returned NaN or infinity for: {texts[place].teacher_text[:80]!r} (text {place + 1:,} of"
            f" {len(texts):,})",
            "try --set capture.dtype=fp32, and check the teacher's weights",
        )
