"""Which of many files to ship: those that nothing beats, and the one that serves a purpose best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emb.errors import GateFailed
from emb.validate.grid.measurements import MeasuredFile

# Differences below these are noise: of times as a share, of quality as it is.
_SAME_TIME, _SAME_QUALITY = 0.05, 0.002
_BROWSER = ("int8", "int4")  # what transformers.js downloads by default; 32 bits are four times the wait


@dataclass(frozen=True)
class Target:
    """A purpose: what it makes small, in words, and which files can serve it at all."""

    what: str
    cost: Callable[[MeasuredFile], float]
    suits: Callable[[MeasuredFile], bool] = lambda point: True


TARGETS = {
    "cpu-latency": Target("the least time for one short text", lambda point: point.latency_ms),
    "cpu-throughput": Target("the most texts per second", lambda point: -point.texts_per_second),
    "browser": Target(
        "the least download × time",
        lambda point: point.bytes * point.latency_ms,
        lambda point: point.weight_dtype in _BROWSER,
    ),
    "smallest": Target("the fewest bytes", lambda point: point.bytes),
    "best": Target("the most of the reference's neighbours found", lambda point: -point.quality),
}


@dataclass(frozen=True)
class Limits:
    """What a choice must keep to: bytes at most, and the share of the best point's quality at least."""

    max_mb: float | None = None
    min_quality: float = 0.95


@dataclass(frozen=True)
class Choice:
    """The file for a target, and why."""

    target: str
    point: MeasuredFile
    why: str


def mark(points: Sequence[MeasuredFile]) -> None:
    """Give each point its state: failed its gate, beaten by another in everything, or on the front."""
    running = [point for point in points if point.passed]
    for point in points:
        better = next((other for other in running if other is not point and dominates(other, point)), None)
        if not point.passed:
            point.state, point.reason = "failed", "failed its gate"
        elif better is not None:
            point.state, point.reason = "dominated", f"{better.name} is as good in everything"


def dominates(one: MeasuredFile, other: MeasuredFile) -> bool:
    """Whether `one` is at least as good in bytes, dims, both times and quality, and better in one of them beyond noise.

    Dims count: an index of 128 dims takes a sixth of the memory of one of 768.
    """
    no_worse = (
        one.bytes <= other.bytes,
        one.dim <= other.dim,
        one.quality >= other.quality - _SAME_QUALITY,
        one.latency_ms <= other.latency_ms * (1 + _SAME_TIME),
        one.texts_per_second >= other.texts_per_second * (1 - _SAME_TIME),
    )
    better = (
        one.bytes < other.bytes,
        one.dim < other.dim,
        one.quality > other.quality + _SAME_QUALITY,
        one.latency_ms < other.latency_ms * (1 - _SAME_TIME),
        one.texts_per_second > other.texts_per_second * (1 + _SAME_TIME),
    )
    return all(no_worse) and any(better)


def choose(points: Sequence[MeasuredFile], target: str, limits: Limits) -> Choice:
    """The point that serves `target` best within `limits`.

    Raises:
        GateFailed: none does; it says which limit stands in the way.
    """
    purpose = TARGETS[target]
    passing = [point for point in points if point.passed and purpose.suits(point)]
    if not passing:
        raise GateFailed(
            f"--target {target}: no file of the grid passed its gate",
            "the table says why; lower --min-cosine, or leave out the target",
        )
    small = [point for point in passing if limits.max_mb is None or point.bytes <= limits.max_mb * 1e6]
    if not small:
        least = min(passing, key=lambda point: point.bytes)
        raise GateFailed(
            f"--max-mb {limits.max_mb:g}: the smallest file that passes, {least.name}, has {least.bytes / 1e6:.1f} MB",
            "raise the limit, or distil with fewer layers",
        )
    best = max(point.quality for point in small)
    kept = [point for point in small if point.quality >= limits.min_quality * best]
    chosen = min(kept, key=lambda point: (purpose.cost(point), point.bytes))
    return Choice(target, chosen, _why(purpose, chosen, kept, best, limits))


def _why(purpose: Target, chosen: MeasuredFile, kept: Sequence[MeasuredFile], best: float, limits: Limits) -> str:
    size = f", have at most {limits.max_mb:g} MB" if limits.max_mb is not None else ""
    return (
        f"{purpose.what}; files that pass their gate{size} and keep {limits.min_quality:.0%} of the best quality found"
        f" ({best:.3f}): {len(kept)}. This one: {chosen.latency_ms:.1f} ms, {chosen.texts_per_second:,.0f} texts/s,"
        f" {chosen.bytes / 1e6:.1f} MB, quality {chosen.quality:.3f}"
    )
