#!/usr/bin/env python3
"""Put deliberate faults into a copy of the package, one at a time, and see whether the tests notice.

`scripts/mutants.yaml` lists the faults: a text that stands once in a file, what it becomes, and the tests that
should fail then. A fault that no test notices SURVIVED, and asks for a test. The working tree is never touched.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import yaml

ROOT = Path(__file__).resolve().parents[1]
FAULTS = Path(__file__).with_suffix(".yaml")
ROOMS = (
    "artifact",
    "model",
    "data",
    "teachers",
    "distill",
    "vocabulary",
    "export",
    "quantize",
    "runtime",
    "integrations",
    "validate",
    "evaluate",
    "publish",
    "search",
    "report",
    "commands",
    "core",
)
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "exports")
_SECONDS = 600  # a fault that never ends is noticed, too
_RAN = re.compile(r"^[sx]*\.[.sx]* +\[ *\d+%\]", re.MULTILINE)  # in pytest's line of dots, one for a test that passed
_VERDICTS = {0: "SURVIVED", 1: "killed"}  # by pytest's exit status; any other means that the tests did not run


@dataclass(frozen=True)
class Fault:
    """One edit: in `file`, `old` becomes `new`; `tests` are files or ids that should fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]

    @property
    def room(self) -> str:
        """The folder of the package it is in; files beside `__init__.py` are "core"."""
        return self.file.split("/")[0] if "/" in self.file else "core"

    def problem(self, tree: Path) -> str | None:
        """Why the fault cannot be put into `tree`; None if it can."""
        if not (tree / self.file).is_file():
            return f"{self.file} is not there"
        found = (tree / self.file).read_text(encoding="utf-8").count(self.old)
        absent = [test for test in self.tests if not (tree / test.split("::")[0]).is_file()]
        return (
            f"its text stands {found} times in {self.file}"
            if found != 1
            else f"{absent[0]} is not there"
            if absent
            else None
        )

    def verdict(self, tree: Path) -> str:
        """Put the fault into `tree`, run its tests there, and take it out again."""
        if problem := self.problem(tree):
            return f"DOES NOT APPLY: {problem}"
        path = tree / self.file
        sound = path.read_text(encoding="utf-8")
        path.write_text(sound.replace(self.old, self.new), encoding="utf-8")
        try:
            status, said = run_tests(tree, self.tests)
        finally:
            path.write_text(sound, encoding="utf-8")
        if not status and not _RAN.search(said):
            return "SKIPPED: its tests need what is not installed here"
        return _VERDICTS.get(status, f"BROKEN: pytest exits {status}: {said[-300:]}")


def read_faults(path: Path = FAULTS) -> list[Fault]:
    """Every fault of the list."""
    return [Fault(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


def problems(faults: Sequence[Fault], tree: Path = ROOT) -> list[str]:
    """Those faults that can no longer be put in, and why."""
    return [f"{fault.name}: {problem}" for fault in faults if (problem := fault.problem(tree))]


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit status on `tests` with the package in `tree`, and what it printed; endless tests have failed."""
    # Without bytecode: a fault of the same size, put in within the same second, would not be seen.
    environment = os.environ | {"PYTHONPATH": str(tree.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return 1, "too slow"
    return done.returncode, done.stdout + done.stderr


def judge(faults: Sequence[Fault], jobs: int, scratch: Path) -> Iterator[tuple[Fault, str]]:
    """Each fault with its verdict, in order; every job works in a copy of the tree below `scratch`."""
    idle: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        idle.put(Path(shutil.copytree(ROOT, scratch / str(number) / "emb", ignore=_LEFT_OUT)))

    def verdict(fault: Fault) -> str:
        tree = idle.get()
        try:
            return fault.verdict(tree)
        finally:
            idle.put(tree)

    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(faults, pool.map(verdict, faults), strict=True)


def require_sound(faults: Sequence[Fault], scratch: Path) -> None:
    """End here if the tests fail without any fault: nothing would be learned."""
    tree = Path(shutil.copytree(ROOT, scratch / "sound" / "emb", ignore=_LEFT_OUT))
    status, said = run_tests(tree, sorted({test for fault in faults for test in fault.tests}))
    if status:
        sys.exit(f"the tests fail without a fault:\n{said[-2000:]}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--room", choices=ROOMS, help="only the faults of one room")
    parser.add_argument("--only", metavar="NAME", help="only the faults whose name contains NAME")
    parser.add_argument("--list", action="store_true", help="name the faults and run nothing")
    parser.add_argument("--check", action="store_true", help="only see whether every fault still applies")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="run so many at once")
    asked = parser.parse_args()
    faults = [each for each in read_faults() if asked.room in (None, each.room) and (asked.only or "") in each.name]
    if asked.list:
        print(*(f"{each.room:9} {each.name}" for each in faults), sep="\n")
        return 0
    if asked.check or not faults:
        print(*(found := problems(faults) if faults else ["no such fault"]), sep="\n")
        return 1 if found else 0
    return report(faults, asked.jobs)


def report(faults: Sequence[Fault], jobs: int) -> int:
    """Run the faults and print their verdicts; 1 if one was not killed."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        require_sound(faults, Path(scratch))
        for fault, verdict in judge(faults, jobs, Path(scratch)):
            missed += verdict != "killed"
            print(f"{fault.room:9} {verdict:8} {fault.name}", flush=True)
    print(f"{len(faults)} faults, {missed} not killed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
