"""What the embedders of all frameworks share: a model by its place, and its vectors of queries and of documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from emb.errors import UsageError
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import Encoder, load

QUERY, DOCUMENT = "query", "document"
Made = TypeVar("Made")


@dataclass(frozen=True)
class Place:
    """Which model, and how it is opened: the arguments of `emb.load` that a file can hold.

    `trust_remote_code` is none of them: a saved pipeline must not be able to ask for a model's own code to be run.
    """

    model: str
    file: str | None = None
    device: str = "cpu"
    threads: int | None = None
    verify: bool = True

    def open(self) -> Encoder:
        """The model.

        Raises:
            ArtifactError: not a model folder or a bundle, or changed since it was written.
            MissingExtra: torch, or the runtime of `file`, is needed and not installed.
            UsageError: no such device here, or a file named of a bundle.
        """
        return load(Path(self.model), file=self.file, device=self.device, threads=self.threads, verify=self.verify)


class Sides:
    """Vectors of queries by the encoder of queries, of documents by that of documents; both may be one.

    The model is opened when it is first needed. A copy for another process has its place alone and opens it there; a
    copy in this process is the same object.
    """

    def __init__(self, place: Place) -> None:
        """Say which model."""
        self.place = place
        self._lock = Lock()
        self._encoder: Encoder | None = None
        # Each side has a thread of its own: batches of documents take turns, and no query waits behind them.
        self._threads = {kind: ThreadPoolExecutor(1, thread_name_prefix=kind) for kind in (QUERY, DOCUMENT)}

    def open(self) -> Encoder:
        """The model, opened once; of a bundle the documents' encoder waits for the first document."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self.place.open()
            return self._encoder

    @property
    def alike(self) -> bool:
        """Whether a text has one vector, as a query and as a document."""
        encoder = self.open()
        return not isinstance(encoder, BundleEncoder) and encoder.prompt(QUERY) == encoder.prompt(DOCUMENT)

    def query(self, text: str, **options: Any) -> list[float]:
        """The vector of a query; `options` are those of `Encoder.encode`.

        Raises:
            UsageError: no text, a `truncate_dim` beyond the model's, or a model whose vectors are no floats.
        """
        [vector] = self._vectors(QUERY, [text], **options)
        return vector

    def documents(self, texts: Sequence[str], **options: Any) -> list[list[float]]:
        """A vector for each document.

        Raises:
            UsageError: as `query`, or one text where a list of them is taken.
        """
        if isinstance(texts, str):
            raise UsageError("the documents are one text, and a list of them is taken", "give [text]")
        return self._vectors(DOCUMENT, texts, **options)

    async def query_async(self, text: str, **options: Any) -> list[float]:
        """`query` in a thread: the event loop goes on."""
        return await self._aside(QUERY, lambda: self.query(text, **options))

    async def documents_async(self, texts: Sequence[str], **options: Any) -> list[list[float]]:
        """`documents` in a thread: the event loop goes on."""
        return await self._aside(DOCUMENT, lambda: self.documents(texts, **options))

    async def _aside(self, kind: str, work: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._threads[kind], work)

    def _vectors(self, kind: str, texts: Sequence[str], **options: Any) -> list[list[float]]:
        vectors = self.open().encode(texts, kind=kind, **options)
        if vectors.dtype != "float32":
            raise UsageError(
                f"{self.place.model}: its vectors are {vectors.dtype}, and stores of documents compare floats",
                "name a file with float vectors: file='onnx/model.onnx'",
            )
        found: list[list[float]] = vectors.tolist()
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sides) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)

    def __reduce__(self) -> tuple[type[Sides], tuple[Place]]:
        return type(self), (self.place,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Sides:
        return self

    def __copy__(self) -> Sides:
        return self
