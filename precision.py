"""Which number format this machine computes fastest without harm."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
