"""Values that options take beyond click's own: lists of numbers, durations, settings."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


class Numbers(click.ParamType):
    """Positive whole numbers, separated by commas."""

    name = "N[,N…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers, in the order given."""
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a whole number above 0, nor several separated by commas", param, ctx)
        return tuple(int(part) for part in parts)


class Duration(click.ParamType):
    """A time such as 90s, 45m or 1h30m, as seconds; a bare number counts seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        text = str(value).strip().lower().replace(" ", "")
        text = f"{text}s" if text[-1:].isdecimal() else text
        total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)) if _DURATION.fullmatch(text) else 0.0
        if total <= 0:
            self.fail(f"{value!r} is not a time such as 90s, 45m or 1h30m", param, ctx)
        return total


class Setting(click.ParamType):
    """`key=value`, the key dotted where the recipe is nested, the value as YAML reads it."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The key, and the value in its type."""
        import yaml

        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        try:
            return key, yaml.safe_load(text)
        except yaml.YAMLError:
            self.fail(f"{text!r} is not a YAML value", param, ctx)
