"""An ONNX file behind onnxruntime: padded batches in, the text vectors out. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ArtifactError, UsageError, first_line
from emb.runtime.engine import CPU, Array, Engine
from emb.tokens import Batch

_SHORT = 64  # tokens, padding included, of a batch that waits for its threads longer than they compute


class Runner(Engine):
    """One ONNX model, for one batch or for many; what it opens besides the first session, it opens when needed."""

    def __init__(self, path: Path, threads: int | None = None, provider: str = CPU) -> None:
        """Open `path` with `threads` threads (None: one per core) on `provider`.

        Raises:
            ArtifactError: missing or not an ONNX model.
            UsageError: ONNX Runtime has no such provider here.
        """
        super().__init__(threads)
        self.path, self.provider = path, provider
        self.session = open_session(path, threads, eager=True, provider=provider)
        self._wanted = [vector_output(self.session)]

    def run(self, batch: Batch) -> Array:
        """The vectors of one batch, ids and mask `(batch, tokens)`."""
        return self._answer(self.session if batch[0].size <= _SHORT else self._patient, batch)

    def beside(self) -> Callable[[Batch], Array]:
        """What answers one of several batches, on the thread that calls."""
        return partial(self._answer, self._single)

    @cached_property
    def _patient(self) -> Any:
        """A session whose threads do not wait long for one another."""
        return (
            self.session
            if self.threads == 1 or self.provider != CPU
            else open_session(self.path, self.threads, provider=self.provider)
        )

    @cached_property
    def _single(self) -> Any:
        """A session whose operators stay on the thread that calls."""
        return (
            self.session
            if self.threads == 1 or self.provider != CPU
            else open_session(self.path, 1, provider=self.provider)
        )

    def _answer(self, session: Any, batch: Batch) -> Array:
        (found,) = session.run(self._wanted, {"input_ids": batch[0], "attention_mask": batch[1]})
        return np.asarray(found)


def vector_output(session: Any) -> str:
    """The name of a session's output that holds text vectors; token vectors are for other clients."""
    names = [str(output.name) for output in session.get_outputs()]
    return "sentence_embedding" if "sentence_embedding" in names else names[0]


def open_session(model: Path | bytes, threads: int | None = None, *, eager: bool = False, provider: str = CPU) -> Any:
    """An onnxruntime session on `provider` with `threads` threads (None: one per core).

    Threads that sleep while they wait take time to wake, which a short text pays for at every operator; threads
    that spin take the core from whoever shares the machine, which a long batch pays for where anybody does
    (docs/log.md). An `eager` session is for short ones: all is as onnxruntime has it.

    Raises:
        ArtifactError: missing or not an ONNX model.
        UsageError: onnxruntime has no such provider here; the CPU is never taken in its place.
    """
    import onnxruntime as ort

    _require_provider(provider, ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    if not eager:
        options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Shapes differ from batch to batch: a plan of memory for each would be kept and never reused.
        options.enable_mem_pattern = False
    if isinstance(model, Path) and not model.is_file():
        raise ArtifactError(f"{model}: no such file", "export the artifact again")
    try:
        session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=[provider, CPU][: 1 + (provider != CPU)],
        )
    except Exception as error:  # onnxruntime's exceptions share no base
        name = model if isinstance(model, Path) else "model"
        raise ArtifactError(
            f"{name}: onnxruntime cannot open it ({first_line(error)})", "export the artifact again"
        ) from error
    # One that cannot start gives way to the CPU with a line on stderr.
    _require_provider(provider, session.get_providers())
    return session


def _require_provider(provider: str, found: list[str]) -> None:
    if provider not in found:
        hint = f"it has {', '.join(found)}; for CUDA: pip install onnxruntime-gpu in place of onnxruntime"
        raise UsageError(f"provider {provider} is not usable: this onnxruntime cannot run it here", hint)
