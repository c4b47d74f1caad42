"""What a vector engine has to do for an index that is copied into it; one file each says how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from emb.errors import UsageError
from emb.similarity import Vectors

FINDS = ("hnsw", "bits", "exact")  # what looks for the nearest
Conditions = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Row:
    """One passage.

    Attributes:
        key: of the passage, 32 hexadecimal digits: a hash of its document's id and of where it begins.
        stamp: a hash of all the rest, the vector too.
        id, title: of the document.
        passage, start, stop: its text, and where that stands in the document's.
        metadata: of the document.
        vector: `(dim,)` float32, as the index decodes it.
    """

    key: str
    stamp: str
    id: str
    title: str
    passage: str
    start: int
    stop: int
    metadata: Mapping[str, str]
    vector: Vectors


@dataclass(frozen=True)
class Found:
    """A passage that a search found; `score` is higher for a closer one."""

    score: float
    id: str
    title: str
    passage: str
    start: int
    stop: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class Form:
    """How vectors lie in an engine.

    Attributes:
        dim: of them.
        measure: "dot", "euclidean" or "manhattan".
        length_one: whether all have length 1.
        codec: of the finest vectors in the index; engines with a type for halves take it for what is no float32.
        find: "hnsw" (a graph), "bits" (signs choose candidates, whole vectors put them in order) or "exact" (every
            vector is looked at).
    """

    dim: int
    measure: str
    length_one: bool
    codec: str
    find: str

    def require_known(self) -> None:
        """Refuse what no engine does.

        Raises:
            UsageError: a way of finding that is unknown, or bits of vectors whose length counts.
        """
        if self.find not in FINDS:
            raise UsageError(f"--find {self.find}: unknown", f"choose one of {', '.join(FINDS)}")
        if self.find == "bits" and not self.length_one:
            raise UsageError(
                f"--find bits: keeps directions alone, and these vectors' {self.measure} similarity needs lengths",
                "choose --find hnsw or --find exact",
            )


class Engine(Protocol):
    """One table or collection. Whatever a library raises is an `EngineError` outside."""

    most_bytes: int | None  # of a text, encoded; None for any
    keeps_nul: bool  # whether a text may hold a NUL character

    def hold(self) -> None:
        """Make ready for writing.

        Raises:
            EngineError: another process writes there, or something is missing.
        """

    def check(self, form: Form) -> None:
        """Raise a `UsageError` for a form that this engine does not have."""

    def setting(self, name: str) -> str | None:
        """A text that lies beside the vectors; None where there is none, or no table yet.

        Raises:
            EngineError: a table of somebody else's lies there.
        """

    def put(self, name: str, text: str) -> None:
        """Write one."""

    def prepare(self, form: Form) -> None:
        """See that the place for rows is there."""

    def drop(self) -> None:
        """Remove rows and settings, whoever made them."""

    def stamps(self) -> Iterator[tuple[str, str]]:
        """Key and stamp of every row."""

    def write(self, rows: Sequence[Row], form: Form) -> None:
        """Add rows, in place of those with the same key; all count when it returns."""

    def remove(self, keys: Sequence[str]) -> None:
        """Remove rows."""

    def finish(self, form: Form) -> None:
        """Build what finds rows, once they are there."""

    def nearest(self, query: Vectors, count: int, where: Conditions, form: Form, depth: int) -> list[Found]:
        """The `count` rows nearest to a query `(dim,)` among those with one of the values under every name.

        Fewer come back only where no more match, or at the engine's own limit.
        """

    def close(self) -> None:
        """Close the connection."""
