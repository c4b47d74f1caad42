"""Start: `emb --help`, and an int8 artifact from interpreter start to its first vector.

Every value is a fresh process. The clock starts before the process is made; memory is the peak resident set of that
process (VmHWM). The loading child also fails if torch got imported. As peers: `SentenceTransformer` on the same
folder, and the bare interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from common import Figure, Report, Series, interleave, model_folder, parser

# time.monotonic() is one clock for all processes of the machine.
_TELL = """
import json, time
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024
"""
_EMB = (
    _TELL
    + """
import sys
from emb.runtime.encoder import load
encoder = load(sys.argv[1], threads=int(sys.argv[2]))
assert encoder.variant.weight_dtype == "int8", encoder.variant
loaded = time.monotonic()
encoder.encode_query(["how do I open a file?"])
first = time.monotonic()
assert "torch" not in sys.modules
print(json.dumps({"loaded": loaded, "first": first, "mb": peak()}))
"""
)
_PEER = (
    _TELL
    + """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
loaded = time.monotonic()
model.encode(["how do I open a file?"])
first = time.monotonic()
print(json.dumps({"loaded": loaded, "first": first, "mb": peak()}))
"""
)
_BARE = (
    _TELL
    + """
loaded = time.monotonic()
print(json.dumps({"loaded": loaded, "first": loaded, "mb": peak()}))
"""
)
MEASURES = {"loaded": "s to a loaded model", "first": "s to the first vector", "mb": "MB peak memory"}
# Installed packages are compiled to bytecode; a working tree is too, after the warm-up, unless this forbids it.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=None, rounds=10)
    options.add_argument(
        "--artifact", type=Path, help="exported folder with an int8 file; without it, --student is exported first"
    )
    options.add_argument(
        "--student", default="all-MiniLM-L6-v2", help="run, student or encoder to export: a name or a folder"
    )
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.artifact or exported(given.student, Path(scratch) / "artifact")
        report = measure(folder, given.rounds, given.threads)
    report.settings |= {"artifact": Path(given.artifact or given.student).name, "threads": given.threads}
    report.write(given.out)


def exported(student: str, folder: Path) -> Path:
    """`student` exported with an int8 file, in a process of its own so that this one stays small."""
    source = student if Path(student).exists() else str(model_folder(student))
    code = "import sys, emb; emb.export(sys.argv[1], int8=True, out=sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, source, str(folder)], check=True)
    return folder


def measure(folder: Path, rounds: int, threads: int) -> Report:
    """Every child in turn, round after round."""
    found: dict[str, list[dict[str, float]]] = {"emb int8": [], "SentenceTransformer fp32": [], "python alone": []}
    codes = dict(zip(found, (_EMB, _PEER, _BARE), strict=True))
    children = {name: child(codes[name], folder, threads, values) for name, values in found.items()}
    help_seconds = interleave({"emb --help": help_page, **children}, rounds)["emb --help"]
    series = [Series("emb --help", "s", help_seconds)]
    series += [
        Series(f"{name}: {key}", unit, [value[key] for value in values[1:]])
        for name, values in found.items()
        for key, unit in MEASURES.items()
    ]
    ours = found["emb int8"][1:]  # the first was the warm-up
    limits = {"loaded": 0.5, "first": None, "mb": 200}
    figures = [Figure("emb --help, s", median(help_seconds), 0.3, at_most=True)]
    figures += [
        Figure(f"emb int8, {unit}", median(value[key] for value in ours), limits[key], at_most=True)
        for key, unit in MEASURES.items()
    ]
    return Report("startup", {}, series, figures)


def help_page() -> float:
    """Seconds of `emb --help`, through the console script where it is installed."""
    script = Path(sys.executable).with_name("emb")
    words = [str(script)] if script.is_file() else [sys.executable, "-m", "emb.cli"]
    started = time.monotonic()
    subprocess.run([*words, "--help"], check=True, stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
    return time.monotonic() - started


def child(code: str, folder: Path, threads: int, values: list[dict[str, float]]) -> Callable[[], float]:
    """Run `code` in a fresh interpreter and keep what it tells, its times counted from here."""

    def run() -> float:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), str(threads)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=_ENVIRONMENT,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        values.append({"loaded": told["loaded"] - started, "first": told["first"] - started, "mb": told["mb"]})
        return values[-1]["first"]

    return run


if __name__ == "__main__":
    main()
