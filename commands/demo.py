"""The commands `emb demo …`: whole jobs, each step of which is a command that is shown before it runs."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from emb.artifact.runs import run_status
from emb.commands.console import Outcome, reports
from emb.errors import EmbError, UsageError
from emb.files import atomic_path

TEACHER, DIM = "all-MiniLM-L6-v2", 256
_PATIENCE = 120  # seconds until the server has its models in memory
_STDERR = 2


class StepFailed(EmbError):
    """A command of the job ended with an error, which it has told already."""


@dataclass(frozen=True)
class Step:
    """A command as a user types it after `emb`, and whether what it makes is there."""

    command: Sequence[str]
    done: Callable[[], bool] = lambda: False


@click.group()
def demo() -> None:
    """Do a whole job on documents that every machine has."""


@demo.command("search")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/demo-search"),
    show_default=True,
    help="Folder for all of it.",
)
@click.option(
    "--documents", type=click.IntRange(min=100), default=5000, show_default=True, metavar="N", help="How many at most."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Of the page.")
@click.option("--serve/--no-serve", default=True, show_default=True, help="Show the page at the end, until Ctrl-C.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open it in the browser.")
@reports
def search(out: Path, documents: int, port: int, serve: bool, browser: bool) -> Outcome:
    """Make Python's own documentation searchable in one go.

    A student without layers is distilled for the docstrings of the standard library, the teacher indexes them, and a
    page in the browser searches by the student. Stopped in whatever way, the same command goes on where it was.
    """
    source = out / "documents.jsonl"
    count = _written(source, documents)
    for step in steps(out):
        if not step.done():
            _run(step.command)
    if serve:
        _serve(out / "bundle", out / "index", port, browser)
    site = out / "site"
    told = [
        f"{count:,} documents. Search them on the command line:",
        f'  emb search "how do I read a file line by line?" --index {out / "index"} --query {out / "bundle"}',
        f"in a page with a server:\n  emb serve {out / 'bundle'} --index {out / 'index'} --compare",
        f"or in a page that needs none but one of files:\n  python -m http.server --directory {site}",
    ]
    return Outcome(
        {"documents": count, "index": out / "index", "bundle": out / "bundle", "site": site}, "\n".join(told)
    )


def steps(out: Path) -> list[Step]:
    """The job in order: a student for the documents, both encoders as one, an index, a page without a server."""
    documents, run, bundle = str(out / "documents.jsonl"), out / "run", out / "bundle"
    export = run / "exports" / f"0x{DIM}"
    begun = ["--resume"] if run_status(run) else []
    distill = ["distill", "--teacher", TEACHER, "--for", documents, "--layers", "0", "--out", str(run), *begun]
    site = ["web", str(bundle), documents, "--title", "Python's documentation", "--out", str(out / "site")]
    return [
        Step(distill, lambda: run_status(run) == "finished"),
        Step(["export", str(run), "--layers", "0", "--dim", str(DIM)], (export / "emb.json").is_file),
        Step(["bundle", "--query", str(export), "--out", str(bundle)], (bundle / "bundle.json").is_file),
        # Always: it goes on behind the last block, and takes a moment where nothing is left to do.
        Step(["index", documents, "--doc", str(bundle), "--out", str(out / "index"), "--metadata", "module"]),
        Step(site, (out / "site" / "page.json").is_file),
    ]


def _written(path: Path, limit: int) -> int:
    """Write the documents, unless they are there; how many there are.

    Raises:
        UsageError: there are others, of another `--documents`.
    """
    from emb.data.python_documents import python_documents

    found = [json.dumps(each, ensure_ascii=False) + "\n" for each in python_documents(limit)]
    if not path.is_file():
        with atomic_path(path) as partial:
            partial.write_text("".join(found), encoding="utf-8")
    elif path.read_text(encoding="utf-8") != "".join(found):
        raise UsageError(
            f"{path}: other documents than these {len(found):,}", "choose another folder with --out, or remove this one"
        )
    return len(found)


def _run(command: Sequence[str]) -> None:
    """Show a command and run it in a process of its own; what it says goes to stderr, as all that is said on the way.

    Raises:
        StepFailed: it ended with an error; the exit code is its.
    """
    with _started(command) as process:
        code = process.wait()
    _require(command, code)


def _serve(bundle: Path, index: Path, port: int, browser: bool) -> None:
    """The page until Ctrl-C, which the server gets too, and ends after what it has accepted."""
    command = ["serve", str(bundle), "--index", str(index), "--compare", "--port", str(port)]
    with _started(command) as server:
        if browser:
            threading.Thread(target=_show, args=(f"http://127.0.0.1:{port}", server), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()
    _require(command, server.returncode)


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    from emb.progress import is_quiet, note

    note(f"\n$ emb {shlex.join(command)}")
    quiet = ["--quiet"] if is_quiet() else []
    return subprocess.Popen([sys.executable, "-m", "emb.cli", *command, *quiet], stdout=_STDERR)


def _require(command: Sequence[str], code: int) -> None:
    if code:
        failed = StepFailed(
            f"emb {command[0]} ended with exit code {code}", "see above; the same command goes on where this one was"
        )
        failed.exit_code = code
        raise failed


def _show(address: str, server: subprocess.Popen[bytes]) -> None:
    """Open the page once the server answers."""
    deadline = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=1):
            webbrowser.open(address)
            return
        time.sleep(0.2)
