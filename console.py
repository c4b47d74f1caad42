"""How every command speaks: result on stdout, the rest on stderr, one exit code, one JSON object.

Exit codes: 0 done · 1 a quality gate failed · 2 bad usage or bad input · 70 a fault of this program · 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from emb.errors import EmbError, UsageError, first_line
from emb.extras import needs_extra

_ON_INTERRUPT = {
    "distill": "finished work is kept: run the same command with --resume to go on",
    "encode": "finished work is kept: run the same command again to go on",
}


class Interrupted(EmbError):
    """The user pressed Ctrl-C."""

    exit_code = 130


class Unexpected(EmbError):
    """A fault of this program, or of a library below it, that nobody foresaw."""

    exit_code = 70


@dataclass(frozen=True)
class Outcome:
    """What a command found: `data` for --json, `text` for people, and why it is not good enough, if so."""

    data: dict[str, Any]
    text: str
    failure: EmbError | None = None


def reports(command: Callable[..., Outcome]) -> Callable[..., int]:
    """Add --json and --quiet to a command that returns an `Outcome`, and print that."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")
    @click.option("--quiet", "-q", is_flag=True, help="No notes and no progress bars.")
    @functools.wraps(command)
    def run(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> int:
        from emb.progress import set_quiet

        set_quiet(quiet)
        # A library that prints must not break the one JSON object.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            outcome = command(*args, **kwargs)
        click.echo(_dump(outcome.data) if as_json else outcome.text)
        return _tell(outcome.failure) if outcome.failure else 0

    return run


def run(group: click.Group, args: Sequence[str]) -> int:
    """Carry out `args` and return the exit code; errors a user can mend are told without a traceback."""
    try:
        with needs_extra():
            return int(group.main(list(args), prog_name="emb", standalone_mode=False) or 0)
    except EmbError as error:
        return _fail(args, error)
    except click.UsageError as error:
        return _fail(args, UsageError(error.format_message(), f"see: {error.ctx.command_path} --help" if error.ctx else ""))
    except click.ClickException as error:
        return _fail(args, UsageError(error.format_message()))
    except (KeyboardInterrupt, click.Abort):
        return _fail(args, Interrupted("stopped", _ON_INTERRUPT.get(args[0] if args else "", "run the same command again")))
    except BrokenPipeError:
        # The reader of stdout has gone (`emb models | head -1`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # a fault of this program: one line for the user, the rest in a file
        if os.environ.get("EMB_DEBUG"):
            raise
        return _fail(args, Unexpected(f"unexpected: {type(error).__name__}: {first_line(error)}", f"the traceback is in {_log(error)}; EMB_DEBUG=1 shows it"))


def _log(error: BaseException) -> str:
    handle, name = tempfile.mkstemp(prefix="emb-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return name


def _fail(args: Sequence[str], error: EmbError) -> int:
    if "--json" in args:
        click.echo(_dump({"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}))
    return _tell(error)


def _tell(error: EmbError) -> int:
    click.echo(f"error: {error}", err=True)
    return error.exit_code


def _dump(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` in the types of JSON: dataclasses as objects, paths as text, NaN and infinity as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Columns aligned for a terminal: numbers to the right, text to the left."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
    lines = ("  ".join(text.rjust(width) if flush else text.ljust(width) for text, width, flush in zip(row, widths, right, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
