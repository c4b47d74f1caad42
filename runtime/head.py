"""What follows an encoder's token vectors, in numpy: pooling, projections, the cut to the artifact's dim,
normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emb.artifact.manifest import Manifest
from emb.errors import ArtifactError
from emb.files import read_json

Array = np.ndarray[Any, np.dtype[Any]]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "Identity": lambda values: values,
    "Tanh": np.tanh,
    "ReLU": lambda values: np.maximum(values, 0),
    "Sigmoid": lambda values: 1 / (1 + np.exp(-values)),
}


@dataclass(frozen=True)
class Dense:
    """One projection: `weight` `(out, in)`, `bias` `(out,)` or none, what follows, and what is added: nothing, the
    input, or its product with a matrix.
    """

    weight: Array
    bias: Array | None
    activation: Callable[[Array], Array]
    residual: bool = False
    residual_weight: Array | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> Dense:
        """Read a Dense module of a sentence-transformers folder.

        Raises:
            ArtifactError: a file is missing, or its activation is not known here.
        """
        from safetensors.numpy import load_file

        config = read_json(folder / "config.json")
        kind = config["activation_function"].split(".")[-1]
        if kind not in ACTIVATIONS:
            raise ArtifactError(
                f"{folder}: activation {kind} is not supported here",
                f"supported: {', '.join(ACTIVATIONS)}; the ONNX files have any",
            )
        if not (folder / "model.safetensors").is_file():
            raise ArtifactError(f"{folder / 'model.safetensors'}: no such file", "export the artifact again")
        tensors = load_file(folder / "model.safetensors")
        return cls(
            tensors["linear.weight"],
            tensors.get("linear.bias"),
            ACTIVATIONS[kind],
            config.get("use_residual", False),
            tensors.get("residual.weight"),
        )

    def __call__(self, vectors: Array) -> Array:
        """Vectors `(batch, out)` of vectors `(batch, in)`."""
        projected = vectors @ self.weight.T
        activated = self.activation(projected if self.bias is None else projected + self.bias)
        if not self.residual:
            return activated
        return activated + (vectors if self.residual_weight is None else vectors @ self.residual_weight.T)


@dataclass(frozen=True)
class Head:
    """Text vectors from token vectors, as the modules of the artifact say."""

    pooling: str
    dense: tuple[Dense, ...]
    dim: int
    normalize: bool

    @classmethod
    def from_folder(cls, folder: Path, manifest: Manifest) -> Head:
        """Read the head of the artifact `folder`.

        Raises:
            ArtifactError: a file is missing, or an activation is not known here.
        """
        paths = [module["path"] for module in read_json(folder / "modules.json") if module["type"].endswith(".Dense")]
        return cls(
            manifest.pooling,
            tuple(Dense.from_folder(folder / path) for path in paths),
            manifest.dim,
            manifest.normalize,
        )

    def __call__(self, states: Array, lengths: Array) -> Array:
        """Vectors `(batch, dim)` of token vectors `(batch, tokens, hidden)`, the first `lengths` `(batch,)` of each
        being a text's.
        """
        vectors = _pool(states, lengths, self.pooling)
        for dense in self.dense:
            vectors = dense(vectors)
        vectors = vectors[:, : self.dim]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True) if self.normalize else np.ones(1, vectors.dtype)
        finished: Array = vectors / np.maximum(lengths, 1e-12)
        return finished


def _pool(states: Array, lengths: Array, pooling: str) -> Array:
    if pooling == "mean":
        weights = (np.arange(states.shape[1]) < lengths[:, None]).astype(states.dtype)
        # A product of matrices: no second array as large as the states.
        means: Array = (weights[:, None] @ states)[:, 0] / np.maximum(lengths, 1).astype(states.dtype)[:, None]
        return means
    picked: Array = states[np.arange(len(states)), 0 if pooling == "cls" else np.maximum(lengths - 1, 0)]
    empty: Array = np.where(lengths[:, None] > 0, picked, np.zeros_like(picked))
    return empty
