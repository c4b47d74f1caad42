"""Progress and notes on stderr; stdout belongs to results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_console = Console(stderr=True)


def set_quiet(quiet: bool) -> None:
    """Silence notes and bars, for scripts; warnings and errors still show."""
    _console.quiet = quiet


def is_quiet() -> bool:
    """Whether notes and bars are silenced."""
    return _console.quiet


def note(message: str) -> None:
    """Say what is being done or was found."""
    _console.print(message, markup=False, highlight=False, soft_wrap=True)  # a path broken in two cannot be copied


def warn(message: str) -> None:
    """Say what went wrong without stopping the work; shown in quiet mode too."""
    Console(stderr=True).print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(description: str, total: float | None) -> Iterator[Callable[..., None]]:
    """Show a bar, without an end if `total` is None; yield `advance(amount, text, total)` where `text` is shown behind
    it and `total` is a new end.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=_console, disable=_console.quiet) as progress:
        task = progress.add_task(description, total=total, text="")

        def advance(amount: float = 1, text: str | None = None, total: float | None = None) -> None:
            progress.update(task, advance=amount, total=total)
            if text is not None:
                progress.update(task, text=text)

        yield advance
