"""The query encoder's token table in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from emb.errors import ArtifactError
from emb.files import read_json
from emb.similarity import Vectors, unit

_NAMES = ("embeddings", "embedding.weight")  # model2vec's and sentence-transformers'
_HINT = "make an encoder of no layers: emb distill --layers 0, then emb export --layers 0"


@dataclass(frozen=True)
class Table:
    """A row of `dim` int8 for each token, `(tokens, dim)`, and the scale of each row, `(tokens,)` float32."""

    rows: Vectors
    scales: Vectors

    @classmethod
    def of(cls, floats: Vectors) -> Table:
        """The largest number of each row becomes 127: rows are of very different lengths."""
        scales = (np.abs(floats).max(axis=1) / 127).astype(np.float32)
        return cls(np.round(floats / np.where(scales, scales, 1)[:, None]).astype(np.int8), scales)

    def content(self) -> bytes:
        """The file: scales first, which must begin at a multiple of four, then rows."""
        return self.scales.astype("<f4").tobytes() + self.rows.tobytes()

    def encode(self, ids: Sequence[np.ndarray[Any, Any]], normalize: bool) -> Vectors:
        """What page/encoder.js computes of token `ids` of texts, `(texts, dim)`."""
        empty = np.zeros(self.rows.shape[1])
        means = np.stack([self._rows(each).mean(axis=0) if len(each) else empty for each in ids])
        return unit(means) if normalize else means

    def _rows(self, ids: np.ndarray[Any, Any]) -> Vectors:
        return np.asarray(self.rows[ids].astype(np.float64) * self.scales[ids].astype(np.float64)[:, None])


def is_static(folder: Path) -> bool:
    """Whether the model folder is that of an encoder without layers."""
    return _kinds(folder)[0] == "StaticEmbedding"


def read_rows(folder: Path) -> Vectors:
    """The rows `(tokens, hidden)` float32 of a static encoder's folder.

    Raises:
        ArtifactError: an encoder with further modules, or no table in it.
    """
    if extra := [kind for kind in _kinds(folder)[1:] if kind != "Normalize"]:
        raise ArtifactError(f"{folder}: the page cannot run the module {extra[0]}", _HINT)
    path = folder / read_json(folder / "modules.json")[0]["path"] / "model.safetensors"
    try:
        with safe_open(path, framework="numpy") as tensors:
            name = next(name for name in _NAMES if name in tensors.keys())  # noqa: SIM118
            return np.asarray(tensors.get_tensor(name), np.float32)
    except (OSError, SafetensorError, StopIteration) as error:
        raise ArtifactError(f"{path}: holds no table of token rows", _HINT) from error


def _kinds(folder: Path) -> list[str]:
    return [each["type"].rpartition(".")[2] for each in read_json(folder / "modules.json")]
