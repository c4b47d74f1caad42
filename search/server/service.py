"""One model that is served: what all routes ask for vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

from emb.errors import UsageError
from emb.runtime.encoder import Encoder
from emb.search.server.batcher import Batcher, Vectorised
from emb.search.server.gate import Traffic
from emb.search.server.metrics import Metrics
from emb.search.server.problems import BACKEND, INVALID, Problem
from emb.search.server.reading import Inputs, id_rows, listed, text_rows
from emb.search.server.settings import KINDS, Settings
from emb.similarity import Vectors, first_not_finite, unit
from emb.tokens import Rows

_RUN = 256  # tokens that a thread runs at once: of the few texts that wait together, each thread must get some
_FIRST = ("a text", 40 * "a text ", 16 * [40 * "a text "])
_SHORT = 4_000  # characters that are tokenised sooner than another thread wakes up
Found = TypeVar("Found")


@dataclass(frozen=True)
class Embedded:
    """What a request gets: vectors `(texts, dim)` float32, the tokens read, and the seconds it took to get them."""

    vectors: Vectors
    tokens: int
    characters: int
    total: float
    waited: float
    computed: float


class Service:
    """An encoder behind its queue, with the settings and the figures of the server.

    Attributes:
        encoder: only the queue's threads run it.
        settings, metrics, traffic: of this server.
        batcher: the queue.
    """

    def __init__(self, encoder: Encoder, settings: Settings) -> None:
        """Serve `encoder`; what it sets up for a short text, a long one and a batch is set up here, so that no client
        waits for it.

        Raises:
            UsageError: its vectors are no floats.
        """
        kind, *_ = (encoder.encode(texts).dtype for texts in _FIRST)
        if kind != "float32":
            raise UsageError(
                f"--file: the model's vectors are {kind}, and clients are told floats",
                "name a file with float vectors, such as onnx/model.onnx",
            )
        self.encoder, self.settings, self.metrics, self.traffic = encoder, settings, Metrics(), Traffic()
        encode = partial(encoder.encode_ids, tokens_per_batch=_RUN)
        beside = partial(encode, here=True)
        self.batcher = Batcher(encode, settings, self.metrics, beside=beside, workers=encoder.workers)
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="texts")

    def close(self) -> None:
        """Finish what was taken."""
        self.batcher.close()
        self._aside.shutdown()

    def failed(self, problem: Problem) -> None:
        """Count a request that gets no answer but this."""
        self.metrics.counters.add("te_request_failure", problem.kind.error_type.lower())

    def prompt(self, name: str | None, param: str) -> str:
        """What stands before a text: the prompt of that name, or of the kind that the server was started with.

        Raises:
            Problem: the model has no such prompt, or is not for texts of that kind.
        """
        kind = name or self.settings.kind
        if self.settings.only not in (None, kind):
            raise Problem(INVALID, f"{param}: this model is for texts of kind {self.settings.only}", param)
        if kind in KINDS:
            return self.encoder.prompt(kind)
        if name not in self.encoder.prompts:
            known = ", ".join(sorted({"query", "document", *self.encoder.prompts}))
            raise Problem(INVALID, f"{param}: the model has no prompt {name!r}; it has {known}", param)
        return self.encoder.prompts[str(name)]

    async def embed(
        self,
        request: Request,
        inputs: Inputs,
        prompt: str,
        *,
        param: str,
        truncate: bool | None = None,
    ) -> Embedded:
        """Vectors of a request's `inputs`, as `encoder.encode` gives them; `param` is what the API calls them.

        Raises:
            Problem: why there are none.
        """
        began = time.perf_counter()
        texts = listed(inputs, param, self.settings.max_client_batch_size)
        method = "single" if isinstance(inputs, str) else "batch"
        self.metrics.counters.add("te_request_count", method)
        rows = await self._rows(texts, prompt, self.settings.auto_truncate if truncate is None else truncate, param)
        lengths = [len(row) for row in rows]
        self.metrics.lengths(lengths)
        tokenized = time.perf_counter() - began
        found = await unless_gone(request, self.batcher.vectors(rows))
        self._check(found)
        total = time.perf_counter() - began
        self.metrics.answered(len(rows), total, tokenized, found.waited, found.computed)
        self.metrics.counters.add("te_request_success", method)
        characters = sum(len(text) for text in texts if isinstance(text, str))
        return Embedded(found.vectors, sum(lengths), characters, total, found.waited, found.computed)

    def check_dimensions(self, dimensions: int | None) -> None:
        """Make sure, before anything is encoded, that so many dimensions can be kept.

        Raises:
            Problem: the model has fewer.
        """
        if dimensions is not None and not 1 <= dimensions <= self.encoder.dim:
            said = f"dimensions: {dimensions}, and the model has 1 to {self.encoder.dim}"
            raise Problem(INVALID, said, "dimensions")

    def cut(self, vectors: Vectors, dimensions: int | None, *, normalize: bool) -> Vectors:
        """The first `dimensions` of each vector, of length 1 where `normalize` says so."""
        whole = dimensions in (None, self.encoder.dim)
        if whole and self.encoder.normalize:
            return vectors
        kept = vectors[:, :dimensions]
        return unit(kept) if normalize else kept

    async def aside(self, function: Callable[..., Found], *given: Any) -> Found:
        """Call a function that would hold up the other requests, on a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, function, *given)

    async def _rows(self, texts: Sequence[Any], prompt: str, truncate: bool, param: str) -> Rows:
        tokenizer = self.encoder.tokenizer
        if not isinstance(texts[0], str):
            return id_rows(tokenizer, texts, param)

        def tokenize() -> Rows:
            return text_rows(tokenizer, texts, prompt, truncate=truncate, param=param)

        return tokenize() if sum(map(len, texts)) <= _SHORT else await self.aside(tokenize)

    def _check(self, found: Vectorised) -> None:
        row = first_not_finite(found.vectors)
        if row is not None:
            raise Problem(BACKEND, f"text {row + 1} gets NaN or infinity: the model's weights are damaged")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """What `work` comes to; it is given up where the client goes before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(INVALID, "the client has gone")
        return await task
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
