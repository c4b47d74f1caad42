"""What runs the files of an artifact: padded batches in, the text vectors out, by the runtime that each file is made
for.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import UsageError, needs_extra
from emb.tokens import Batch

if TYPE_CHECKING:
    from emb.artifact.manifest import Manifest

Array = np.ndarray[Any, np.dtype[Any]]
CPU = "CPUExecutionProvider"
_PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider"}
_LIBRARIES = {".onnx": "onnxruntime", ".xml": "openvino", ".bin": "ctranslate2"}


class Engine(ABC):
    """One model, for one batch or for many.

    A batch alone has all threads. Of several, whole batches run side by side, a thread each: within a batch,
    threads wait for one another at every operator.
    """

    def __init__(self, threads: int | None = None) -> None:
        """`threads` to compute with (None: one per core)."""
        self.threads = threads or _cores()

    @abstractmethod
    def run(self, batch: Batch) -> Array:
        """The vectors of one batch, ids and mask `(batch, tokens)`."""

    @abstractmethod
    def beside(self) -> Callable[[Batch], Array]:
        """What answers one of several batches on a thread of its own; several threads may call it at once."""

    def run_each(self, padded: Sequence[Callable[[], Batch]]) -> Iterator[Array]:
        """The vectors of each batch, in order; a batch is made only when a thread is free for it."""
        if len(padded) == 1 or self.threads == 1:
            yield from (self.run(each()) for each in padded)
            return
        answer = self.beside()
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(lambda each: answer(each()), padded)


def library_of(file: str) -> str:
    """The runtime that a file of an artifact is made for."""
    return _LIBRARIES.get(Path(file).suffix, "onnxruntime")


def require_library(file: str) -> None:
    """Make sure that the runtime of `file` is installed.

    Raises:
        MissingExtra: it is not, naming the extra that brings it.
    """
    with needs_extra(), unreported():
        import_module(library_of(file))


@contextmanager
def unreported() -> Iterator[None]:
    """Import OpenVINO and NNCF inside and nobody is told.

    Through the package of this name they report each import and use to their makers, unasked; they do without where it
    is missing.
    """
    name = "openvino_telemetry"
    if name in sys.modules:  # somebody else wanted it
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def provider_of(device: str) -> str:
    """ONNX Runtime's execution provider for a device such as "cpu" or "cuda".

    Raises:
        UsageError: a device that ONNX Runtime has no provider of that name for.
    """
    if device not in _PROVIDERS:
        hint = f"known: {', '.join(_PROVIDERS)}; another provider by its name: provider=…"
        raise UsageError(f"device {device!r} is unknown to ONNX Runtime", hint)
    return _PROVIDERS[device]


def open_engine(
    folder: Path, manifest: Manifest, file: str, threads: int | None = None, provider: str | None = None
) -> Engine:
    """`file` of the artifact `folder` behind its runtime; no other runtime is imported.

    Raises:
        ArtifactError: missing, or its runtime cannot open it.
        MissingExtra: its runtime is not installed.
        UsageError: a `provider` that ONNX Runtime does not have here, or for a file of another runtime.
    """
    require_library(file)
    if library_of(file) != "onnxruntime" and provider not in (None, CPU):
        raise UsageError(
            f"{file}: {library_of(file)} has no provider {provider}",
            "these files run on the CPU; for another device name an .onnx file",
        )
    if library_of(file) == "openvino":
        from emb.runtime.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(folder / file, threads)
    if library_of(file) == "ctranslate2":
        from emb.runtime.ctranslate2_engine import CTranslate2Engine
        from emb.runtime.head import Head

        return CTranslate2Engine((folder / file).parent, Head.from_folder(folder, manifest), threads)
    from emb.runtime.sessions import Runner

    return Runner(folder / file, threads, provider or CPU)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
