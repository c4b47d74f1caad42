"""NaN and infinity never leave: the one check that vectors pass before they are written, scored or fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emb.errors import ArtifactError

Vectors = np.ndarray[Any, Any]
_SHOWN = 80  # characters of a text in messages
_HINT = "the model's weights are damaged, or too large for the file's precision; validate it"


class NotFiniteError(ArtifactError):
    """A vector that holds NaN or infinity; `row` is its text's among those checked, counted from 0."""

    def __init__(self, row: int, text: str, where: str = "") -> None:
        super().__init__(f"{where}text {row + 1} gets NaN or infinity: {text[:_SHOWN]!r}", _HINT)
        self.row, self.text = row, text

    def placed(self, before: int, where: str = "") -> NotFiniteError:
        """The same where `before` texts came before those checked; `where` begins the message."""
        return NotFiniteError(before + self.row, self.text, where)


def first_not_finite(vectors: Vectors) -> int | None:
    """The first row of `vectors` `(texts, dim)` with NaN or infinity in it; stored formats have none."""
    # One sum over all: NaN and infinity come through it, and a sum too large for float32 is looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        if vectors.dtype.kind != "f" or np.isfinite(vectors.sum()):
            return None
    good = np.isfinite(vectors).all(axis=1)
    return None if good.all() else int(np.argmin(good))


def require_finite(vectors: Vectors, texts: Sequence[str], where: str = "") -> None:
    """Check the vectors `(texts, dim)` of `texts`; `where` begins the message.

    Raises:
        NotFiniteError: NaN or infinity; the first such text is named by its place and its beginning.
    """
    row = first_not_finite(vectors)
    if row is not None:
        raise NotFiniteError(row, texts[row], where)
