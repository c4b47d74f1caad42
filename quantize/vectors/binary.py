"""One bit per direction: the sign of a vector's components, after centring and a rotation if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from emb.errors import UsageError
from emb.quantize.vectors.base import Codes
from emb.quantize.vectors.bits import BitCodec
from emb.quantize.vectors.ranges import binarize
from emb.similarity import Vectors

ROTATIONS = ("none", "random", "itq")
_ITQ_TEXTS = 10_000  # that the rounds look at
_ITQ_ROUNDS = 20


@dataclass
class BinaryCodec(BitCodec):
    """Bits are `(vector - centre) · direction > 0`, packed as `binarize` packs them.

    Without centring and rotation these are the plain sign bits of the first dimensions, the convention of the
    artifact. `scale` is the mean size of a component: what a bit stands for.
    """

    centre: Vectors
    directions: Vectors
    scale: float
    rotation: str = "none"

    kind = "binary"

    def __post_init__(self) -> None:
        self.dim = len(self.centre)

    @classmethod
    def fit(
        cls, vectors: Vectors, *, bits: int | None = None, rotation: str = "none", centre: bool = False, seed: int = 0
    ) -> Self:
        """Fit to training vectors `(texts, dim)`.

        Args:
            vectors: to take the mean, the principal directions and the scale from.
            bits: of a code; None for as many as there are dimensions, fewer keep the first dimensions ("none"),
                random ones ("random") or the principal ones ("itq").
            rotation: "none"; "random", an orthonormal matrix that spreads what is uneven over all bits; or "itq",
                the rotation of the principal directions that loses least when signs are taken (Gong and Lazebnik 2011,
                Iterative Quantization).
            centre: subtract the mean first.
            seed: of the random matrix, and of ITQ's start.

        Raises:
            UsageError: more bits than dimensions, or an unknown rotation.
        """
        dim = vectors.shape[1]
        bits = bits or dim
        if bits > dim:
            raise UsageError(
                f"{bits} bits of {dim} dims: a rotation has no more directions than dims",
                "use the bebr codec for more bits",
            )
        if rotation not in ROTATIONS:
            raise UsageError(f"rotation {rotation!r} is unknown", f"known: {', '.join(ROTATIONS)}")
        mean = (vectors.mean(0) if centre else np.zeros(dim)).astype(np.float32)
        directions = _directions(vectors - mean, bits, rotation, seed)
        return cls(mean, directions, float(np.abs((vectors - mean) @ directions.T).mean()), rotation)

    @classmethod
    def restore(cls, dim: int, arrays: Mapping[str, Vectors], settings: Mapping[str, Any]) -> Self:
        """See `Codec`."""
        directions = arrays["directions"] if "directions" in arrays else _first(settings["bits"], dim)
        return cls(arrays["centre"], directions, settings["scale"], settings["rotation"])

    @property
    def name(self) -> str:
        """Bits, and what was done before taking signs."""
        return " ".join(
            [
                f"{len(self.directions)} sign bits",
                *(["centred"] if self.centre.any() else []),
                *([self.rotation] if self.rotation != "none" else []),
            ]
        )

    @cached_property
    def atoms(self) -> Vectors:
        """See `BitCodec`."""
        return self.directions * np.float32(self.scale)

    @property
    def offset(self) -> Vectors:
        """See `BitCodec`."""
        return self.centre

    def arrays(self) -> dict[str, Vectors]:
        """The centre, and the directions where there is a rotation."""
        return {"centre": self.centre} | ({"directions": self.directions} if self.rotation != "none" else {})

    def settings(self) -> dict[str, Any]:
        """Bits, rotation and scale."""
        return {"bits": len(self.directions), "rotation": self.rotation, "scale": self.scale}

    def _encode(self, vectors: Vectors) -> Codes:
        return binarize((vectors - self.centre) @ self.directions.T)


def random_rotation(bits: int, dim: int, seed: int) -> Vectors:
    """`bits` orthonormal rows `(bits, dim)` float32, uniform among all rotations."""
    square = np.random.default_rng(seed).standard_normal((dim, dim))
    rotation, upper = np.linalg.qr(square)
    return np.asarray((rotation * np.sign(np.diag(upper)))[:bits], np.float32)


def itq_rotation(vectors: Vectors, bits: int, seed: int) -> Vectors:
    """The rotation `(bits, dim)` of the first principal directions whose components are nearest to one size, by turns
    of signs and Procrustes.
    """
    principal = principal_directions(vectors, bits)
    reduced = vectors[:: -(-len(vectors) // _ITQ_TEXTS)] @ principal.T
    turn = random_rotation(bits, bits, seed)
    for _ in range(_ITQ_ROUNDS):
        ones = np.where(reduced @ turn > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd(reduced.T @ ones)
        turn = (left @ right).astype(np.float32)
    return np.ascontiguousarray(turn.T @ principal)


def principal_directions(vectors: Vectors, count: int) -> Vectors:
    """Orthonormal rows `(count, dim)` float32 along which `vectors` `(texts, dim)` reach farthest from zero, the
    farthest first.
    """
    _, axes = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    return np.ascontiguousarray(axes[:, ::-1][:, :count].T, np.float32)


def _directions(vectors: Vectors, bits: int, rotation: str, seed: int) -> Vectors:
    if rotation == "none":
        return _first(bits, vectors.shape[1])
    return itq_rotation(vectors, bits, seed) if rotation == "itq" else random_rotation(bits, vectors.shape[1], seed)


def _first(bits: int, dim: int) -> Vectors:
    return np.eye(bits, dim, dtype=np.float32)
