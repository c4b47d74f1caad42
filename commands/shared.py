"""What several commands take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])
Lists = Sequence[tuple[int, ...]]


def model_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of `emb models`, and folders."""
    from emb.teachers.registry import teachers

    names = [name for name in teachers() if name.lower().startswith(incomplete.lower())]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def output(default: str) -> Callable[[Command], Command]:
    """Add --out, for which its help says the `default`, and --overwrite."""

    def add(command: Command) -> Command:
        command = click.option("--overwrite", is_flag=True, help="Replace what --out holds.")(command)
        told = f"Folder to write. Default: {default}."
        return click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help=told)(command)

    return add


def no_verify(command: Command) -> Command:
    """Add --no-verify."""
    return click.option(
        "--no-verify", is_flag=True, help="Take an artifact whose files have changed since it was written."
    )(command)


def trusted_key(command: Command) -> Command:
    """Add --trusted-key."""
    return click.option(
        "--trusted-key",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A public key: refuse an artifact that is not as `emb sign` signed it with that one's private key.",
    )(command)


def remote_code(command: Command) -> Command:
    """Add --trust-remote-code."""
    return click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run code of its own.")(
        command
    )


def flat(groups: Lists) -> tuple[int, ...]:
    """Every number once, in the order given."""
    return tuple(dict.fromkeys(number for group in groups for number in group))
