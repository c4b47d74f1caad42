"""What a student learns from: anything that has an identity and gives vectors of texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from emb.similarity import Vectors


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


class Teacher(Protocol):
    """A model folder, a file of vectors, or a function; `normalized` says whether all vectors have length 1."""

    @property
    def identity(self) -> TeacherIdentity: ...

    @property
    def dim(self) -> int: ...

    @property
    def normalized(self) -> bool: ...

    def prompt(self, kind: str) -> str:
        """What stands before a text of `kind`: with the text it is the key of its vector."""
        ...

    def embed(self, texts: Sequence[str], kind: str) -> Vectors:
        """Vectors `(texts, dim)` of texts that are all queries, or all documents."""
        ...
