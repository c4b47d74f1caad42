"""A teacher that is a Python function: an endpoint, another library, an ensemble."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import TeacherError, UsageError, first_line
from emb.similarity import Vectors
from emb.teachers.protocol import Teacher, TeacherIdentity

FUNCTION = "function:"  # before the name of a teacher that is one: a recipe cannot hold it
_PROBES = (
    "time",
    "How many people know the number of the house?",
    "Ein Satz über das Wetter.",
    "return the number of bytes written",
)
_DECIMALS = 2  # of unit vectors: what differs by more is another teacher, what differs by less the machine's rounding


class FunctionTeacher:
    """`function(texts)` → vectors `(texts, dim)`; one with an argument `kind` is told "query" or "document".

    Its identity is its name and its vectors of a few fixed texts; a function with an attribute `identity` (a text) is
    known by that instead. Either names the cache in which its vectors are found again.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function = function
        self.name = name or _name_of(function)
        self.knows_kinds = _takes_kind(function)

    @cached_property
    def _probes(self) -> Vectors:
        return np.concatenate([self._called(list(_PROBES), kind) for kind in ("query", "document")])

    @cached_property
    def identity(self) -> TeacherIdentity:
        """By its own attribute, or by what it gives."""
        named = getattr(self.function, "identity", None)
        lengths = np.maximum(np.linalg.norm(self._probes, axis=1, keepdims=True), 1e-12)
        seen = (
            str(named)
            if named
            else hashlib.sha256(np.round(self._probes / lengths, _DECIMALS).astype(np.float32).tobytes()).hexdigest()
        )
        return TeacherIdentity(f"function {self.name} {seen}", 0, "any")

    @property
    def dim(self) -> int:
        """Width of its vectors."""
        return int(self._probes.shape[1])

    @property
    def normalized(self) -> bool:
        """Whether its vectors of the fixed texts have length 1."""
        return bool(np.abs(np.linalg.norm(self._probes, axis=1) - 1).max() < 1e-3)

    def prompt(self, kind: str) -> str:
        """None that is known: the kind, where the function asks for it."""
        return f"{kind}: " if self.knows_kinds else ""

    def embed(self, texts: Sequence[str], kind: str) -> Vectors:
        """What the function gives, looked at.

        Raises:
            TeacherError: it raised an error, or gave something else than a vector of one width for each text.
        """
        found = self._called(list(texts), kind)
        if found.shape[1] != self.dim:
            raise TeacherError(
                f"{self.name} gives vectors of {found.shape[1]} dims, and gave {self.dim} before",
                "every vector must have one width",
            )
        return found

    def _called(self, texts: list[str], kind: str) -> Vectors:
        try:
            found = np.asarray(
                self.function(texts, kind=kind) if self.knows_kinds else self.function(texts), np.float32
            )
        except Exception as error:  # anybody's code
            raise TeacherError(
                f"{self.name} raised {type(error).__name__}: {first_line(error)}",
                "what it gave before is cached: mend it and resume",
            ) from error
        if found.ndim != 2 or len(found) != len(texts):
            raise TeacherError(
                f"{self.name} gives {found.shape} for {len(texts)} texts",
                f"give an array ({len(texts)}, dim): a vector for each text",
            )
        return found


def as_teacher(given: Callable[..., Any] | Teacher) -> Teacher:
    """A function as a teacher; what is one already stays."""
    return given if hasattr(given, "embed") and hasattr(given, "identity") else FunctionTeacher(given)  # type: ignore[return-value]


def teacher_name(teacher: Any, given: Teacher | None, vectors: str | Path | None) -> str | None:
    """What a recipe calls the teacher that `emb.distill` is given.

    Raises:
        UsageError: two teachers.
    """
    if vectors is not None and teacher is not None:
        raise UsageError(f"--teacher-vectors {vectors}: there is a --teacher too", "give one of them")
    if given is not None:
        return f"{FUNCTION}{getattr(given, 'name', type(given).__name__)}"
    chosen = teacher if vectors is None else vectors
    return None if chosen is None else str(chosen)


def _name_of(function: Callable[..., Any]) -> str:
    """Of a file as well: "lambda", not "<lambda>"."""
    return str(getattr(function, "__qualname__", type(function).__qualname__)).replace("<", "").replace(">", "")


def _takes_kind(function: Callable[..., Any]) -> bool:
    try:
        return "kind" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins have none
        return False
