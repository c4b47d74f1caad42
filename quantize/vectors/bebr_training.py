"""Training of recurrent binarisation on cached vectors; needs torch, which serving does not.

No labels are asked for, as in BEBR (section 3.2): within a batch, the vectors themselves say what is near. There a
contrastive loss tells a vector's own code from others; here the codes are to give the same softmax of similarities
as the vectors, for float queries and for coded ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from emb.errors import UsageError
from emb.progress import bar
from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.binary import principal_directions, random_rotation
from emb.quantize.vectors.bits import signs
from emb.similarity import Vectors

_ANCHORS, _NEAR, _POOL = 4, 64, 8192  # a batch: so many vectors, each with its nearest of so many drawn at random
_LR = 5e-4
_TEMPERATURE = 0.05


def train(
    vectors: Vectors, codes: int | None, bits: int | None, steps: int, seed: int, compatible: Codec | None
) -> tuple[Vectors, Vectors]:
    """Encoders and decoders, each `(codes, bits, dim)`; `BebrCodec.fit` describes the arguments."""
    if compatible is not None:
        encoders, decoders = _of(compatible, vectors.shape[1], codes, bits)
        return _learned(vectors, encoders, decoders, steps, seed, fixed=True)[0], decoders
    encoders = _start(vectors, codes or 2, bits or half(vectors.shape[1]), seed)
    encoders, directions = _learned(vectors, encoders, _scaled(vectors, encoders, encoders), steps, seed, fixed=False)
    return encoders, _scaled(vectors, encoders, directions)


def half(dim: int) -> int:
    """Bits of which two codes take what sign bits take, in whole bytes."""
    return max(8, dim // 2 // 8 * 8)


def _of(codec: Codec, dim: int, codes: int | None, bits: int | None) -> tuple[Vectors, Vectors]:
    """The matrices of the codec to be compatible with."""
    arrays = codec.arrays()
    if "decoders" not in arrays or codec.dim != dim:
        raise UsageError(
            f"compatible with a {codec.kind} codec of {codec.dim} dims", f"give a bebr codec of {dim} dims"
        )
    shape = arrays["encoders"].shape
    if (codes or shape[0], bits or shape[1]) != shape[:2]:
        raise UsageError(
            f"the codec to be compatible with has {shape[0]} codes of {shape[1]} bits", "leave out --codes and --bits"
        )
    return arrays["encoders"], arrays["decoders"]


def _start(vectors: Vectors, codes: int, bits: int, seed: int) -> Vectors:
    """Encoders `(codes, bits, dim)` before training: of what the codes before missed, the principal directions, turned
    at random so that all bits carry alike.
    """
    dim = vectors.shape[1]
    if bits % 8 or bits > dim:
        raise UsageError(
            f"--bits {bits}: codes must fill whole bytes, with no more bits than the vectors' {dim} dims",
            f"choose {half(dim)}, and more --codes for more bits",
        )
    missed, encoders = vectors, []
    for number in range(codes):
        principal = principal_directions(missed, bits)
        encoders.append(random_rotation(bits, bits, seed + number) @ principal)
        missed = missed - _stands_for(missed, encoders[-1], encoders[-1])[0]
    return np.stack(encoders)


def _stands_for(missed: Vectors, encoder: Vectors, directions: Vectors) -> tuple[Vectors, Vectors]:
    """What one code of `missed` stands for along `directions` `(bits, dim)`, scaled so that it loses least; and its
    decoder.

    One number is fitted, not a matrix: least squares per direction would shrink what training texts have little of,
    which is what tells texts of another field apart.
    """
    ones = signs(np.packbits(missed @ encoder.T > 0, axis=1), len(encoder)) @ directions
    scale = np.float32(np.vdot(ones, missed) / max(float(np.vdot(ones, ones)), 1e-12))
    return ones * scale, directions * scale


def _scaled(vectors: Vectors, encoders: Vectors, directions: Vectors) -> Vectors:
    """Decoders along `directions`, solved one after the other: no code makes the squared error on `vectors` larger than
    it was without it.
    """
    missed, decoders = vectors, []
    for encoder, direction in zip(encoders, directions, strict=True):
        found, decoder = _stands_for(missed, encoder, direction)
        missed = missed - found
        decoders.append(decoder)
    return np.stack(decoders)


def _learned(
    vectors: Vectors, encoders: Vectors, decoders: Vectors, steps: int, seed: int, *, fixed: bool
) -> tuple[Vectors, Vectors]:
    """Encoders and decoders after `steps` of training; with `fixed`, decoders stay."""
    w_start, (v_start, size) = _unit_scale(vectors, encoders, decoders), _unit_size(decoders)
    w, v = (torch.from_numpy(array).requires_grad_(learns) for array, learns in ((w_start, True), (v_start, not fixed)))
    optimizer = torch.optim.Adam([w] if fixed else [w, v], lr=_LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, max(steps, 1))
    source, sizes, generator = torch.from_numpy(vectors), torch.from_numpy(size), torch.Generator().manual_seed(seed)
    with bar("codec (steps)", steps) as advance:
        for _ in range(steps):
            loss = _loss(_neighbourhoods(source, generator), w, v * sizes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(1, f"loss {loss.item():.3f}")
    return w.detach().numpy(), (v * sizes).detach().numpy()


def _unit_scale(vectors: Vectors, encoders: Vectors, decoders: Vectors) -> Vectors:
    """The same encoders, scaled so that what they take the sign of has a spread of 1: the window of the estimator."""
    missed, scaled = vectors[:: max(1, len(vectors) // 2000)], []
    for encoder, decoder in zip(encoders, decoders, strict=True):
        before = missed @ encoder.T
        scaled.append(encoder / max(float(before.std()), 1e-12))
        missed = missed - signs(np.packbits(before > 0, axis=1), len(encoder)) @ decoder
    return np.stack(scaled).astype(np.float32)


def _unit_size(decoders: Vectors) -> tuple[Vectors, Vectors]:
    """Decoders with weights of size 1, and the sizes `(codes, 1, 1)` they had: one rate must suit encoders and
    decoders.
    """
    sizes = np.maximum(decoders.std(axis=(1, 2), keepdims=True), 1e-12).astype(np.float32)
    return decoders / sizes, sizes


def _neighbourhoods(source: Tensor, generator: torch.Generator) -> Tensor:
    """A batch `(texts, dim)` of near neighbours, where search has to tell apart; rows differ from one another."""
    pool = source[torch.randint(len(source), (min(_POOL, len(source)),), generator=generator)]
    near = (pool[:_ANCHORS] @ pool.T).topk(min(_NEAR, len(pool)), dim=1).indices
    return pool[near.unique()]  # type: ignore[no-untyped-call]


def _loss(batch: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Divergence of the similarities among `batch` `(texts, dim)`, each to all others, from those that codes give."""
    decoded = torch.zeros_like(batch)
    for encoder, decoder in zip(w, v, strict=True):
        decoded = decoded + _Sign.apply((batch - decoded) @ encoder.T) @ decoder  # type: ignore[no-untyped-call]
    goal = _logits(batch, batch).softmax(1)
    pairs = ((batch, decoded), (decoded, decoded))
    return torch.stack([kl_div(_logits(a, b).log_softmax(1), goal, reduction="batchmean") for a, b in pairs]).sum()


def _logits(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / _TEMPERATURE).masked_fill(torch.eye(len(a), dtype=torch.bool), -1e4)  # not with itself


class _Sign(torch.autograd.Function):
    """-1 or 1; its gradient is that of the identity between -1 and 1 (straight-through estimator, Bengio et al. 2013,
    arXiv 1308.3432).
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return torch.where(value > 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        value: Tensor = ctx.saved_tensors[0]
        return gradient * (value.abs() < 1)
