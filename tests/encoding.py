"""A file encoded in a process of its own, in small blocks, that may kill itself at a call of choice."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

from emb.runtime import streams, unfinished
from emb.runtime.encoder import load
from emb.runtime.streams import encode_file

BLOCK = 3


def small(put: Any) -> None:
    """Blocks of three texts, each listed as soon as it is done; `put` is `setattr`, or pytest's."""
    put(streams, "BLOCK", BLOCK)
    put(unfinished, "SECONDS", 0.0)


def encode(model: Path, source: Path, out: Path, die: tuple[str, str, int] | None = None) -> None:
    """`encode_file`; with `die` (module, function, number) the process kills itself at that call."""
    small(setattr)
    if die:
        dying_at(*die)
    encode_file(load(model, threads=1), source, out, model="m")


def dying_at(module: str, function: str, at: int) -> None:
    owner, (*within, name) = import_module(module), function.split(".")
    for part in within:
        owner = getattr(owner, part)
    whole, calls = getattr(owner, name), iter(range(1, 1000))

    def dying(*arguments: Any, **options: Any) -> Any:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **options)

    setattr(owner, name, dying)
