"""Rooms that can be called: `emb.distill(…)` is the function `distill` in `distill/__init__.py`.

A room and its function have one name, and a package has one attribute for both. Were that the function, `import
emb.distill.losses as losses` would look for `losses` in it and fail; so the attribute is the room, which passes calls
on.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _Door(ModuleType):
    door: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.door(*args, **kwargs)


def open_door(room: str, function: Callable[..., Any]) -> None:
    """Let the module called `room` be called as `function`, whose signature it shows."""
    module: Any = sys.modules[room]
    module.__class__ = _Door
    module.door, module.__signature__ = function, inspect.signature(function)
