"""What the benchmarks share: texts, interleaved rounds, and the table and JSON that come of them."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from emb.data.corpus import Text
from emb.data.evaluation_sets import RetrievalTask
from emb.files import write_json
from emb.similarity import Vectors

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "accelerate", "onnxruntime", "numpy")
_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True)
class Series:
    """What one contender measured, one value per round."""

    name: str
    unit: str
    values: Sequence[float]

    def summary(self) -> dict[str, Any]:
        """Median, extremes and every round."""
        return {
            "unit": self.unit,
            "median": median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "rounds": list(self.values),
        }


@dataclass(frozen=True)
class Figure:
    """A number to reach: at least `target`, or at most with `at_most`; None is for information."""

    name: str
    value: float
    target: float | None = None
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether it was; None if nothing was asked."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass
class Report:
    """One benchmark's outcome."""

    benchmark: str
    settings: dict[str, Any]
    series: list[Series] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Save as JSON and print as tables; series must differ in name."""
        series = {item.name: item.summary() for item in self.series}
        figures = [asdict(figure) | {"reached": figure.reached} for figure in self.figures]
        content = {
            "benchmark": self.benchmark,
            "command": command(),
            "settings": self.settings,
            "machine": machine(),
            "versions": versions(),
        }
        write_json(
            path, rounded(content | {"series": series, "figures": figures} | ({"rows": self.rows} if self.rows else {}))
        )
        _print(self, path)


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Ratio of the medians, `first` over `second`."""
    return median(first) / median(second)


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure A B C, A B C, …: what disturbs the machine for a while disturbs them all.

    Each runs once beforehand, unmeasured: first calls allocate, compile and fill caches.
    """
    for contender in contenders.values():
        contender()
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            gc.collect()  # what the one before left behind must not slow this one down
            values[name].append(contender())
            print(f"round {number} of {rounds}: {name}: {values[name][-1]:,.2f}", file=sys.stderr)
    return values


def parser(description: str | None, *, texts: int | None, rounds: int | None = 5) -> argparse.ArgumentParser:
    """The options of every benchmark, with this one's defaults; None where it has no such option."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if texts is not None:
        options.add_argument(
            "--texts",
            metavar="FILE",
            help="jsonl or jsonl.gz with text and kind; without it, the Python documentation on this machine",
        )
        options.add_argument(
            "--limit", type=int, default=texts, help="how many of them, drawn at random with a fixed seed"
        )
    if rounds is not None:
        options.add_argument("--rounds", type=int, default=rounds, help="measured rounds, after one that is not")
    options.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads that each contender may use"
    )
    options.add_argument("--out", type=Path, default=RESULTS / f"{Path(sys.argv[0]).stem}.json", help="JSON to write")
    return options


def sample(file: str | None, limit: int) -> list[Text]:
    """`limit` texts drawn from the whole file, so that lengths and kinds are mixed as they are there."""
    from emb.data.corpus import read_corpus
    from emb.data.default_corpus import default_corpus

    texts = (read_corpus([file]) if file else default_corpus()).texts
    return random.Random(0).sample(texts, min(limit, len(texts)))


def model_folder(name: str) -> Path:
    """Where the model of a registry name, hub id or path lies."""
    from emb.teachers.registry import resolve

    return resolve(name).path


@contextmanager
def temporary_cache() -> Iterator[Path]:
    """An empty teacher cache for the time being; the user's own is not touched."""
    before = os.environ.get("EMB_CACHE")
    with tempfile.TemporaryDirectory(prefix="emb-benchmark-") as folder:
        os.environ["EMB_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("EMB_CACHE")
            if before is not None:
                os.environ["EMB_CACHE"] = before


def command() -> str:
    """The command that was run, with folders left out of its paths."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine() -> dict[str, Any]:
    """CPU model, usable cores, the instruction sets that matter here, and memory in GB."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info.splitlines())}
    flags = facts.get("flags", "").split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    model = (
        f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
        if "model name" in facts
        else platform.machine()
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory_gb": memory,
        "gpu": _gpu(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that were measured."""
    return {"python": platform.python_version(), **{name: found for name in _LIBRARIES if (found := _version(name))}}


def rounded(value: Any) -> Any:
    """The same value with floats at five significant digits: more is noise and makes diffs long."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # not imported for this: some benchmarks measure its absence
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def _print(report: Report, path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "median", "min – max", "unit", title=report.benchmark)
    for item in report.series:
        numbers = item.summary()
        table.add_row(
            item.name, f"{numbers['median']:,.2f}", f"{numbers['min']:,.2f} – {numbers['max']:,.2f}", item.unit
        )
    figures = Table("figure", "value", "target", "")
    for figure in report.figures:
        target = "" if figure.target is None else f"{'≤' if figure.at_most else '≥'} {figure.target:g}"
        figures.add_row(
            figure.name, f"{figure.value:.4g}", target, {True: "reached", False: "missed", None: ""}[figure.reached]
        )
    console = Console()
    console.print(*([table] if report.series else []), figures)
    console.print(f"written to {path}", markup=False)


def teacher_vectors(task: RetrievalTask, name: str) -> tuple[Vectors, Vectors]:
    """A teacher's vectors of queries and documents, of length 1; of documents from the cache if they are there."""
    from emb.data.corpus import Corpus
    from emb.distill.targets import document_vectors
    from emb.model.embedding_model import load_model
    from emb.recipes.recipe import Recipe
    from emb.runtime.torch_encoder import TorchEncoder
    from emb.similarity import unit
    from emb.teachers.registry import resolve

    teacher, (queries, texts) = resolve(name), task.sides
    whole = Corpus([Text(text) for text in dict.fromkeys(texts)])
    known = unit(document_vectors(Recipe(teacher=name), teacher, whole, False))
    row = {item.text: place for place, item in enumerate(whole.texts)}
    encoder = TorchEncoder(load_model(teacher.path))
    return unit(encoder.encode(queries, kind="query")), known[[row[text] for text in texts]]
