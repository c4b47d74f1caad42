"""Which number format this machine computes fastest without harm."""

from __future__ import annotations

import torch

from emb.errors import UsageError, first_line


def device() -> torch.device:
    """The CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable_device(name: str) -> torch.device:
    """A device by name: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UsageError: torch cannot compute on it here; the CPU is never taken in its place.
    """
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a name it does not know, or a build without it
        raise UsageError(f"device {name!r}: torch cannot use it here ({first_line(error)})", "leave out the device for the CPU, or install torch for it") from error
    return torch.device(name)


def gains_from_bf16() -> bool:
    """Whether matrix products in bfloat16 are faster here than in float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capability = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capability and _has_bf16_instructions()


def resolve_dtype(name: str) -> torch.dtype:
    """The dtype for "auto", "bf16" or "fp32"."""
    bf16 = name == "bf16" or (name == "auto" and gains_from_bf16())
    return torch.bfloat16 if bf16 else torch.float32


def _has_bf16_instructions() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
