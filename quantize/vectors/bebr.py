"""Recurrent binarisation: each code of bits stores what the codes before it missed.

After BEBR (Gan et al. 2023, Binary Embedding-based Retrieval at Tencent, arXiv 2302.08714, section 3.1): b₀ =
sign(W₀ f), and then in turn what the codes so far stand for, r_{t-1}, and b_t = sign(W_t (f - r_{t-1})). There a
code is expanded by a small network and all share one space of bits; here it is expanded by one matrix, r_t =
r_{t-1} + V_t b_t, so that the codes decode into the space of the vectors: float queries, and queries coded by
another codec with the same V, are scored against them by the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from emb.errors import needs_extra
from emb.quantize.vectors.base import Codec, Codes
from emb.quantize.vectors.bits import BitCodec, signs
from emb.similarity import Vectors


@dataclass
class BebrCodec(BitCodec):
    """`codes` codes of `bits` bits each, one behind the other: more of them, less is missed.

    Attributes:
        encoders: W, `(codes, bits, dim)`.
        decoders: V, `(codes, bits, dim)`: what each bit adds or takes away.
    """

    encoders: Vectors
    decoders: Vectors

    kind = "bebr"

    def __post_init__(self) -> None:
        self.dim = self.encoders.shape[2]

    @classmethod
    def fit(
        cls,
        vectors: Vectors,
        *,
        codes: int | None = None,
        bits: int | None = None,
        steps: int = 100,
        seed: int = 0,
        compatible: Codec | None = None,
    ) -> Self:
        """Train on vectors `(texts, dim)`; needs torch.

        Args:
            vectors: of training texts.
            codes: how many codes follow one another; None for 2.
            bits: of each, a multiple of 8; None for half as many as there are dims.
            steps: of training.
            seed: of the start and of the batches.
            compatible: a bebr codec whose documents are to be found: its V is kept and only W is trained, so that
                codes of new vectors (another model's in the same space) stand for what its own stand for.

        Raises:
            UsageError: bits that fill no bytes, or `compatible` is of another kind, dim or shape.
            MissingExtra: torch is not installed.
        """
        with needs_extra():
            from emb.quantize.vectors.bebr_training import train
        return cls(*train(vectors, codes, bits, steps, seed, compatible))

    @classmethod
    def restore(cls, dim: int, arrays: Mapping[str, Vectors], settings: Mapping[str, Any]) -> Self:
        """See `Codec`."""
        return cls(arrays["encoders"], arrays["decoders"])

    @property
    def codes(self) -> int:
        """How many codes a vector gets."""
        return len(self.encoders)

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return int(self.encoders.shape[1])

    @property
    def name(self) -> str:
        """Codes and their bits."""
        return f"bebr {self.codes} × {self.bits} bits"

    @cached_property
    def atoms(self) -> Vectors:
        """See `BitCodec`."""
        return self.decoders.reshape(-1, self.dim)

    @property
    def offset(self) -> Vectors:
        """Nothing."""
        return np.zeros(self.dim, np.float32)

    def arrays(self) -> dict[str, Vectors]:
        """Both stacks of matrices."""
        return {"encoders": self.encoders, "decoders": self.decoders}

    def _encode(self, vectors: Vectors) -> Codes:
        missed, packed = vectors, []
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            packed.append(np.packbits(missed @ encoder.T > 0, axis=1))
            missed = missed - signs(packed[-1], self.bits) @ decoder
        return np.concatenate(packed, axis=1)
