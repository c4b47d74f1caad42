"""How every command speaks: result on stdout, the rest on stderr, one exit code, one JSON object.

Exit codes: 0 done · 1 a quality gate failed · 2 bad usage or bad input · 70 an error that nobody foresaw, with its
traceback in a log file · 130 stopped with Ctrl-C · 143 stopped with SIGTERM. `emb --debug COMMAND`, or EMB_DEBUG=1,
shows the traceback of every error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import click

from emb.errors import DiskError, EmbError, Terminated, UsageError, first_line, needs_extra

_ON_INTERRUPT = {
    "demo": "finished work is kept: run the same command again to go on",
    "distill": "finished work is kept: run the same command with --resume to go on",
    "encode": "finished work is kept: run the same command again to go on",
    "index": "what is committed is kept: run the same command again to go on",
    "sync": "what is written is kept: run the same command again to go on",
}


class Interrupted(EmbError):
    """The user pressed Ctrl-C, or SIGTERM came."""

    exit_code = 130


class Unexpected(EmbError):
    """A fault of this program, or of a library below it, that nobody foresaw."""

    exit_code = 70

    @property
    def told(self) -> str:
        """One line: a log that reads it sees the whole."""
        return f"{self.message}; {self.hint}"


@dataclass(frozen=True)
class Outcome:
    """What a command found: `data` for --json, `text` for people, and why it is not good enough, if so."""

    data: dict[str, Any]
    text: str
    failure: EmbError | None = None


def reports(command: Callable[..., Outcome]) -> Callable[..., int]:
    """Add --json and --quiet to a command that returns an `Outcome`, and print that."""

    @click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr."
    )
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
    """Carry out `args` and return the exit code; no error is told with a traceback, unless `--debug` asks for it."""
    try:
        with needs_extra(), _terminated():
            return int(group.main(list(args), prog_name="emb", standalone_mode=False) or 0)
    except BrokenPipeError:
        # The reader of stdout has gone (`emb models | head -1`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        cause = _behind(error)
        if _debugging(args):
            traceback.print_exception(cause)
        return _fail(args, _ours(args, cause))


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM, which would otherwise end the process where it stands."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _behind(error: BaseException) -> BaseException:
    # click makes one exception of Ctrl-C and of the end of a file, which a damaged .npy raises too.
    return error.__cause__ if isinstance(error, click.Abort) and error.__cause__ else error


def _debugging(args: Sequence[str]) -> bool:
    return "--debug" in takewhile(lambda arg: arg.startswith("-"), args) or os.environ.get("EMB_DEBUG", "0") not in (
        "",
        "0",
    )


def _ours(args: Sequence[str], error: BaseException) -> EmbError:
    """`error` as one of ours, by what a user can do about it."""
    if isinstance(error, EmbError):
        return error
    if isinstance(error, click.UsageError):
        return UsageError(error.format_message(), _about(error))
    if isinstance(error, click.ClickException):
        return UsageError(error.format_message())
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _interrupted(args, error)
    if isinstance(error, PermissionError) and error.filename:
        return DiskError(
            f"{error.filename}: {error.strerror}",
            "let the user who runs this have it (chmod, chown), or run this as its owner",
        )
    where = _log(error)
    return Unexpected(
        f"unexpected error: {type(error).__name__}: {first_line(error)}",
        f"the traceback is in {where}" if where else "add --debug to see where",
    )


def _about(error: click.UsageError) -> str:
    """Of a missing option what it is for, of a missing argument where it stands; and where to read more."""
    if error.ctx is None:
        return ""
    lines = [f"see: {error.ctx.command_path} --help"]
    if isinstance(error, click.MissingParameter):
        asked = error.param.help if isinstance(error.param, click.Option) else error.ctx.get_usage()
        lines.insert(0, asked or "")
    return "\n  ".join(lines)


def _interrupted(args: Sequence[str], error: BaseException) -> Interrupted:
    command = next((arg for arg in args if not arg.startswith("-")), "")
    stopped = Interrupted("stopped", _ON_INTERRUPT.get(command, "run the same command again"))
    if isinstance(error, Terminated):
        stopped.exit_code = 143
    return stopped


def _log(error: BaseException) -> Path | None:
    """Write the traceback below the cache folder, or else where temporary files go; None if neither takes it."""
    from emb.files import cache_root

    name, text = f"emb-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log", "".join(traceback.format_exception(error))

    def temporary() -> Path:
        return Path(tempfile.gettempdir())

    def logs() -> Path:
        return cache_root() / "logs"

    for place in (logs, temporary):
        with contextlib.suppress(OSError):  # a place for temporary files is looked for, and need not be there
            folder = place()
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return folder / name
    return None


def _fail(args: Sequence[str], error: EmbError) -> int:
    if "--json" in args:
        click.echo(_dump({"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}))
    return _tell(error)


def _tell(error: EmbError) -> int:
    click.echo(error.told, err=True)
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
