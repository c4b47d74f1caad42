"""Values that options take beyond click's own: lists of numbers, durations, settings."""

from __future__ import annotations

from typing import Any

import click

from emb.recipes.durations import seconds_of

THREADS = click.IntRange(1, 1024)  # a slip of a hundred thousand would take the machine's memory before it failed


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers above zero, separated by commas: `4` or `2,4,6`."""
    return _numbers(text, 1)


def layer_numbers(text: str) -> tuple[int, ...]:
    """Numbers of layers, separated by commas; a static model has 0."""
    return _numbers(text, 0)


def _numbers(text: str, least: int) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) >= least for part in parts):
        raise click.BadParameter(f"{text!r} is not a whole number above {least - 1}, nor several separated by commas")
    return tuple(int(part) for part in parts)


def duration(text: str) -> float:
    """Seconds in a time such as 90s, 45m or 1h30m; a bare number counts seconds."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def setting(text: str) -> tuple[str, Any]:
    """`key=value`: the key dotted where the recipe is nested, the value in the type YAML gives it."""
    import yaml

    from emb.recipes.yaml_files import load_yaml

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not of the form key=value")
    try:
        return key, load_yaml(value)
    except yaml.YAMLError as error:
        raise click.BadParameter(f"{value!r} is not a YAML value") from error
