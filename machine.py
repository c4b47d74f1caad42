"""This machine: the processor that figures come from, devices, and the format it computes fastest without harm."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from emb.errors import UsageError, first_line

if TYPE_CHECKING:
    import torch


def processor() -> str:
    """Its name, as far as the system tells."""
    return next(
        (line.split(":", 1)[1].strip() for line in _facts() if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )


def has_vnni() -> bool:
    """Whether it adds products of bytes in 32 bits (AVX512-VNNI): x86 processors without may overflow 16."""
    return any("avx512_vnni" in line.split() for line in _facts() if line.startswith("flags"))


def _facts() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def device() -> torch.device:
    """The CUDA device if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable_device(name: str) -> torch.device:
    """A device by name: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UsageError: torch cannot compute on it here; the CPU is never taken in its place.
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # a name it does not know, or a build without it
        raise UsageError(
            f"device {name!r}: torch cannot use it here ({first_line(error)})",
            "leave out the device for the CPU, or install torch for it",
        ) from error
    return torch.device(name)


def gains_from_bf16() -> bool:
    """Whether matrix products in bfloat16 are faster here than in float32."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capability = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capability and _has_bf16_instructions()


def resolve_dtype(name: str) -> torch.dtype:
    """The dtype for "auto", "bf16" or "fp32"."""
    import torch

    bf16 = name == "bf16" or (name == "auto" and gains_from_bf16())
    return torch.bfloat16 if bf16 else torch.float32


def _has_bf16_instructions() -> bool:
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
