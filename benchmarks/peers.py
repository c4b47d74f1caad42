"""Encoding speed beside the programs people use instead, each in its own environment, on the same weights.

Every contender is a process of its own (their libraries do not install together) that has loaded its model and
waits; rounds are interleaved, so only one of them works at a time. Each is given its best form: 8-bit weights made
its own way, texts sorted by length where its program does not do it, several batches at once where it can. Cosines
are to the torch model in fp32.

    python benchmarks/peers.py --artifact runs/NAME/exports/6x768 --texts TEXTS

The first call installs the peers into an environment beside the results' cache (1.6 GB).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import Figure, Report, Series, interleave, parser, ratio, sample

WORKER = Path(__file__).with_name("peer_worker.py")
# sentence-transformers 5.7 and transformers 4.57: the newest that optimum-onnx installs with.
PACKAGES = [
    "torch==2.13.0",
    "transformers==4.57.6",
    "sentence-transformers==5.7.0",
    "optimum==2.1.0",
    "optimum-onnx==0.1.0",
    "onnxruntime==1.31.1",
    "fastembed==0.9.1",
    "openvino",
    "nncf",
    "ctranslate2",
]
OURS, TORCH = "emb int8", "sentence-transformers torch fp32"
HERE = {OURS: "emb", TORCH: "torch"}
ELSEWHERE = {
    "sentence-transformers + optimum int8": "optimum",
    "fastembed, emb's int8 file": "fastembed-int8",
    "fastembed fp32": "fastembed-fp32",
    "OpenVINO int8 (NNCF)": "openvino",
    "CTranslate2 int8": "ctranslate2",
}
SHORT = 60  # characters of a short query


class Contender:
    """A waiting process: a word in, a number or an object out."""

    def __init__(self, python: Path, kind: str, artifact: Path, texts: Path, threads: int) -> None:
        self.process = subprocess.Popen(
            [python, WORKER, kind, artifact, texts, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.facts = self._answer()

    def ask(self, what: str) -> float:
        """Carry out one measurement."""
        assert self.process.stdin is not None
        print(what, file=self.process.stdin, flush=True)
        return float(self._answer()["value"])

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = next((line for line in self.process.stdout if line.startswith("{")), None)
        if line is None:
            raise SystemExit(f"{self.process.args}: stopped with {self.process.wait()}")
        return json.loads(line)


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=500)
    options.add_argument("--artifact", type=Path, required=True, help="export with an int8 file")
    options.add_argument(
        "--environment", type=Path, default=Path("runs/peers-venv"), help="where the peers are installed"
    )
    given = options.parse_args()
    pool = sample(given.texts, max(20_000, given.limit))
    chosen = {
        "texts": [item.text for item in pool[: given.limit]],
        "queries": [item.text for item in pool if item.kind == "query" and len(item.text) <= SHORT][:40],
    }
    with tempfile.TemporaryDirectory() as scratch:
        texts = Path(scratch) / "texts.json"
        texts.write_text(json.dumps(chosen), encoding="utf-8")
        pythons = dict.fromkeys(HERE.values(), Path(sys.executable)) | dict.fromkeys(
            ELSEWHERE.values(), environment(given.environment)
        )
        contenders = {
            name: Contender(pythons[kind], kind, given.artifact.resolve(), texts, given.threads)
            for name, kind in (HERE | ELSEWHERE).items()
        }
        report = measure(contenders, given.rounds)
    report.settings |= {
        "artifact": given.artifact.name,
        "texts": len(chosen["texts"]),
        "queries": len(chosen["queries"]),
        "threads": given.threads,
    }
    report.write(given.out)


def environment(folder: Path) -> Path:
    """The Python that has the peers, installed on the first call."""
    python = folder.absolute() / "bin" / "python"
    if not (folder / "ready").is_file():
        venv.create(folder, with_pip=True)
        for group in (PACKAGES[:1], PACKAGES):  # torch first, so that nothing else picks another build
            subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *group], check=True)
        (folder / "ready").touch()
    return python


def measure(contenders: dict[str, Contender], rounds: int) -> Report:
    """Throughput on mixed texts, then latency on short queries, then closeness."""
    rates = interleave(_each(contenders, "throughput"), rounds)
    delays = interleave(_each(contenders, "latency"), rounds)
    series = [Series(name, "texts/s", found) for name, found in rates.items()] + [
        Series(f"{name}, batch 1", "ms (p50)", found) for name, found in delays.items()
    ]
    figures = [Figure(f"smallest cosine: {name}", contender.ask("cosine")) for name, contender in contenders.items()]
    peers = [name for name in contenders if name != OURS]
    figures += [Figure(f"texts/s: {OURS} / {name}", ratio(rates[OURS], rates[name]), 1) for name in peers]
    figures += [Figure(f"latency at batch 1: {name} / {OURS}", ratio(delays[name], delays[OURS]), 1) for name in peers]
    return Report(
        "peers", {"peers": {name: contender.facts for name, contender in contenders.items()}}, series, figures
    )


def _each(contenders: dict[str, Contender], what: str) -> dict[str, Callable[[], float]]:
    return {name: partial(contender.ask, what) for name, contender in contenders.items()}


if __name__ == "__main__":
    main()
