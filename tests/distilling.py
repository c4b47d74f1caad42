"""Small distillations for the tests: in this process, and in others that may be killed.

The others are forked from a server that has imported torch and done nothing else, so that a test can afford a dozen
of them; what kills one of them is a real SIGKILL.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tiny import SENTENCES

STEPS = 45
PAIRS = [[1, 16], [2, 32]]
SMALL: dict[str, Any] = {
    "training.max_steps": STEPS,
    "training.epochs": 20,
    "training.tokens_per_batch": 128,
    "training.precision": "fp32",
    "training.evaluate_every": 15,
    "training.lr": 1e-3,
    "capture.dtype": "fp32",
    "pairs": PAIRS,
}
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["emb.distill.run", "sentence_transformers"])


def texts(count: int = 60) -> list[str]:
    """Different texts of mixed lengths."""
    return [f"{SENTENCES[i % len(SENTENCES)]} {'and so on ' * (i // len(SENTENCES))}{i}" for i in range(count)]


def corpus_file(folder: Path, count: int = 60) -> Path:
    """A JSON Lines corpus, every third text a query."""
    path = folder / "corpus.jsonl"
    records = [{"text": text, "kind": "query" if i % 3 == 0 else "document"} for i, text in enumerate(texts(count))]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def distil(
    teacher: Path,
    data: Path,
    out: Path,
    *,
    cache: Path | None = None,
    layers: int | None = 2,
    more: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """`emb.distill` with small settings; `more` overrides them."""
    import torch

    import emb

    torch.set_num_threads(1)
    os.environ["EMB_CACHE"] = str(cache or out.parent / "cache")
    overrides = (more or {}) if options.get("resume") else {**SMALL, **(more or {})}
    if not options.get("resume"):
        options = {"data": [data], "layers": layers, **options}
        return emb.distill(teacher, out=out, overrides=overrides, **options)
    return emb.distill(out=out, overrides=overrides, **options)


def start(function: Callable[..., Any], *arguments: Any, **options: Any) -> BaseProcess:
    """Run `function` in a process of its own."""
    process = _server.Process(target=function, args=arguments, kwargs=options)
    process.start()
    return process


def finish(process: BaseProcess, seconds: float = 120) -> int:
    """Wait; return the exit code."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the process did not end")
    return process.exitcode


def kill_when(process: BaseProcess, ready: Callable[[], bool], seconds: float = 120) -> None:
    """SIGKILL the process as soon as `ready()`."""
    wait_for(process, ready, seconds)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process) == -signal.SIGKILL, "it ended before it could be killed"


def wait_for(process: BaseProcess, ready: Callable[[], bool], seconds: float = 120) -> None:
    """Return once `ready()`, or once the process has ended."""
    end = time.monotonic() + seconds
    while not ready() and process.is_alive():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def limited(size: int, report: Path, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Run `function` where no file may grow beyond `size` bytes; write what it raised to `report`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    reporting(report, function, *arguments, **options)


def reporting(report: Path, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Run `function`; write "ok", or the kind of error and its text, to `report`."""
    from emb.errors import EmbError

    try:
        function(*arguments, **options)
        report.write_text("ok", encoding="utf-8")
    except EmbError as error:
        report.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    except BaseException:  # a test shows it
        report.write_text(traceback.format_exc()[-1500:], encoding="utf-8")


def ranked(rank: int, world: int, port: int, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Run `function` as one of several processes that train together, as torchrun starts them."""
    given = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({key: str(value) for key, value in given.items()})
    function(*arguments, **options)


def latest_step(run: Path) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max((int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("step-*")), default=0)


def weights(run: Path) -> dict[str, bytes]:
    """The bytes of every file of the student but its manifest, which holds times and paths."""
    student = run / "student"
    return {path.relative_to(student).as_posix(): path.read_bytes() for path in sorted(student.rglob("*.safetensors"))}


def log(run: Path) -> list[dict[str, Any]]:
    """The records of `log.jsonl`."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
