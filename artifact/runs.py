"""The `runs/` folder: which runs there are, and which is the latest. Imports no torch."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from emb.errors import ArtifactError, UsageError
from emb.files import read_json, write_json

FILE = "run.json"
HELD_OUT = "held-out.jsonl"  # the texts that were kept from training
STATIC = "static"  # a run of its own inside a run: the static encoder that was made beside the student
TEACHER = "teacher"  # the folder of the rotated teacher in a run


def write_status(run: Path, status: str, **facts: Any) -> None:
    """Record "running" or "finished" with the time."""
    write_json(run / FILE, {"status": status, "at": datetime.datetime.now(datetime.UTC).isoformat(), **facts})


def latest_run(root: Path = Path("runs"), status: str = "finished") -> Path:
    """The run below `root` that reached `status` last.

    Raises:
        UsageError: there is none.
    """
    found = [
        (record["at"], path.parent)
        for path in root.glob(f"*/{FILE}")
        if (record := read_json(path))["status"] == status
    ]
    if not found:
        raise UsageError(f"{root}/: no {status} run", "start one with `emb distill --teacher NAME`, or name a folder")
    return max(found)[1]


def newest_export() -> Path:
    """The newest export of the latest finished run.

    Raises:
        ArtifactError: there is none.
    """
    run = latest_run()
    found = sorted((run / "exports").glob("*/emb.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ArtifactError(f"{run}: nothing was exported from this run", f"run: emb export {run} --int8")
    return found[-1].parent


def run_status(run: Path) -> str | None:
    """The status of a run folder, or None if it is not one."""
    return read_json(run / FILE)["status"] if (run / FILE).is_file() else None


def run_of(folder: Path) -> Path | None:
    """The run that an artifact lies in, if it does."""
    return next(
        (parent for parent in (folder.resolve(), *folder.resolve().parents[:3]) if (parent / FILE).is_file()), None
    )


def teacher_near(folder: Path) -> Path | None:
    """The rotated teacher of the run that an artifact lies in, wherever that run was moved."""
    run = run_of(folder)
    places = [place / TEACHER for place in (run, run.parent if run and run.name == STATIC else None) if place]
    return next((place for place in places if place.is_dir()), None)


def finished_static(run: Path) -> Path | None:
    """The run of the static encoder inside a run, if it has one that is finished."""
    return run / STATIC if run_status(run) is not None and run_status(run / STATIC) == "finished" else None


def free_name(root: Path, stem: str) -> Path:
    """`root/stem`, or with a number behind it if that is taken."""
    candidate, number = root / stem, 2
    while candidate.exists():
        candidate, number = root / f"{stem}-{number}", number + 1
    return candidate
