"""A graph in OpenVINO's format behind OpenVINO's runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino

from emb.errors import ArtifactError, first_line
from emb.runtime.engine import Array, Engine
from emb.tokens import Batch

# OpenVINO's bindings reach for numpy at the first look into a tensor; two threads that are first at
# once wait for each other for ever (seen in 2026.4). So the first look is here.
_FIRST_LOOK = openvino.Tensor(np.zeros(1, np.int64)).data


class OpenVinoEngine(Engine):
    """One `.xml` with its `.bin`: compiled for latency for a batch alone, with a stream per thread for many."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open `path` with `threads` threads (None: one per core).

        Raises:
            ArtifactError: missing or not a model of OpenVINO.
        """
        super().__init__(threads)
        self.path = path
        self._alone = Requests(self._compiled({"PERFORMANCE_HINT": "LATENCY"}), 1)

    def run(self, batch: Batch) -> Array:
        """The vectors of one batch, ids and mask `(batch, tokens)`."""
        return self._alone.answer(batch)

    def beside(self) -> Callable[[Batch], Array]:
        """What answers one of several batches, on a stream of one thread."""
        return self._streams.answer

    @cached_property
    def _streams(self) -> Requests:
        return Requests(self._compiled({"NUM_STREAMS": self.threads}), self.threads)

    def _compiled(self, settings: dict[str, Any]) -> Any:
        # Where the processor has bfloat16 OpenVINO would compute in it: other vectors than elsewhere.
        settings |= {"INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": "f32"}
        if not self.path.is_file() or not self.path.with_suffix(".bin").is_file():
            raise ArtifactError(f"{self.path}: it or its .bin is missing", "export the artifact again")
        try:
            return openvino.Core().compile_model(str(self.path), "CPU", settings)
        except RuntimeError as error:
            raise ArtifactError(
                f"{self.path}: OpenVINO cannot open it ({first_line(error)})", "export the artifact again"
            ) from error


class Requests:
    """Requests to one compiled model, each for one batch at a time; callers beyond them wait."""

    def __init__(self, compiled: Any, count: int) -> None:
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(count):
            self._idle.put(compiled.create_infer_request())

    def answer(self, batch: Batch) -> Array:
        """The vectors of one batch."""
        request = self._idle.get()
        try:
            request.infer({"input_ids": batch[0], "attention_mask": batch[1]})
            # Copied: the next batch is computed in the same place.
            return np.array(request.get_tensor("sentence_embedding").data)
        finally:
            self._idle.put(request)
