"""A model's vectors of texts, checked, and kept on disk where that is asked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emb.evaluate.scores import Output
from emb.evaluate.subjects import Subject
from emb.files import atomic_path
from emb.similarity import Vectors, require_finite


def encoded(subject: Subject, texts: Sequence[str], kind: str, cache: Path | None) -> dict[Output, Vectors]:
    """Vectors `(texts, dim)` at each output of `subject`; from `cache` where they are there.

    Raises:
        NotFiniteError: NaN or infinity; the text is named.
    """
    if cache is None:
        return _finite(subject, subject.vectors(texts, kind), texts)
    path = cache / f"{_cache_key(subject, texts, kind)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:  # checked as well: an older version wrote whatever it got
            return _finite(subject, {Output(**json.loads(name)): stored[name] for name in stored.files}, texts)
    found = _finite(subject, subject.vectors(texts, kind), texts)
    arrays: dict[str, Any] = {json.dumps(dataclasses.asdict(point)): vectors for point, vectors in found.items()}
    with atomic_path(path) as partial, partial.open("wb") as handle:
        np.savez(handle, **arrays)
    return found


def _finite(subject: Subject, found: dict[Output, Vectors], texts: Sequence[str]) -> dict[Output, Vectors]:
    for point, vectors in found.items():
        require_finite(vectors, texts, f"{subject.name}, layer {point.layers}: ")
    return found


def _cache_key(subject: Subject, texts: Sequence[str], kind: str) -> str:
    content = [*subject.hashes, repr(subject), kind, *texts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
