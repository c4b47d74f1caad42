"""An encoder in CTranslate2's format behind CTranslate2, and what follows the token vectors behind that."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from emb.errors import ArtifactError, first_line
from emb.runtime.engine import Array, Engine
from emb.runtime.head import Head
from emb.tokens import Batch


class CTranslate2Engine(Engine):
    """A folder with `model.bin`: all threads within a batch alone, a batch per thread for many."""

    def __init__(self, folder: Path, head: Head, threads: int | None = None) -> None:
        """Open `folder` with `threads` threads (None: one per core).

        Raises:
            ArtifactError: missing or not a model of CTranslate2.
        """
        super().__init__(threads)
        self.folder, self.head = folder, head
        self._alone = self._open(inter_threads=1, intra_threads=self.threads)

    def run(self, batch: Batch) -> Array:
        """The vectors of one batch, ids and mask `(batch, tokens)`."""
        return self._answer(self._alone, batch)

    def beside(self) -> Callable[[Batch], Array]:
        """What answers one of several batches, on one thread."""
        return partial(self._answer, self._many)

    @cached_property
    def _many(self) -> Any:
        return self._open(inter_threads=self.threads, intra_threads=1)

    def _open(self, **threads: int) -> Any:
        try:
            return ctranslate2.Encoder(str(self.folder), device="cpu", compute_type="default", **threads)
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(
                f"{self.folder}: CTranslate2 cannot open it ({first_line(error)})", "export the artifact again"
            ) from error

    def _answer(self, encoder: Any, batch: Batch) -> Array:
        # It pads by itself, so the texts are taken out of the batch again, whatever side was padded.
        rows = [ids[kept == 1].tolist() for ids, kept in zip(*batch, strict=True)]
        lengths = np.array([len(row) for row in rows])
        # A batch of nothing but a text without tokens ends the process.
        states = np.asarray(encoder.forward_batch([row or [0] for row in rows]).last_hidden_state)
        return self.head(states, lengths)
