"""The picture of size, speed and closeness: what ships, and what was tried for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emb.artifact.manifest import Manifest
from emb.report.charts import Spot, scatter
from emb.report.sections import section, table
from emb.validate.findings import ParityReport
from emb.validate.labels import precision, size

# Below this a cosine differs from 1 only by the rounding of float32 sums, and a log axis has no zero.
_FINEST = 1e-7


@dataclass(frozen=True)
class PlottedFile:
    """One point of the size–speed–quality picture; `state` is ships, tried or failed."""

    name: str
    bytes: float
    texts_per_second: float
    min_cosine: float
    state: str


def pareto(manifest: Manifest, report: ParityReport) -> str:
    """The section with the picture and its table; empty where nothing was timed."""
    found = plotted_files(manifest, report)
    if not found:
        return ""
    largest = max(each.bytes for each in found)
    spots = [
        Spot(number, each.name, each.texts_per_second, _loss(each), each.bytes / largest, each.state)
        for number, each in enumerate(found, 1)
    ]
    gate = next(
        (
            limit
            for one in report.variants
            if one.weight_dtype == "int8" and one.vector_dtype == "float32"
            for limit in (g.limit for g in one.gates)
        ),
        None,
    )
    line = (1 - gate, f"gate of int8: {gate:g}") if gate and gate < 1 else None
    chart = scatter(
        "Speed, closeness and size (area)", spots, "texts per second →", "1 − min cosine (better ↑)", front(found), line
    )
    rows = [
        [
            str(n),
            f"{each.name}: {_STATES[each.state]}",
            size(each.bytes),
            f"{each.texts_per_second:,.0f}",
            f"{each.min_cosine:.6f}",
        ]
        for n, each in enumerate(found, 1)
    ]
    body = table(["", "file or candidate", "size", "texts/s", "min cosine"], rows, {1}, wrapped=1)
    text = (
        "The line joins those that nothing else beats on both speed and closeness. Recipes that were tried and not"
        " chosen were measured at export, on fewer texts."
    )
    return section("Size, speed, quality", f"<div class='pair'>{chart}<div>{body}</div></div>", text)


_STATES = {"ships": "passed", "tried": "tried, not chosen", "failed": "failed its gate"}


def plotted_files(manifest: Manifest, report: ParityReport) -> list[PlottedFile]:
    """Files of the folder, and int8 schemes that were tried for it."""
    shipped = [
        PlottedFile(
            precision(one),
            one.bytes,
            one.speed["texts_per_second"],
            one.min_cosine,
            "ships" if one.passed else "failed",
        )
        for one in report.variants
        if one.vector_dtype == "float32" and one.speed
    ]
    return shipped + _tried(manifest, report)


def _tried(manifest: Manifest, report: ParityReport) -> list[PlottedFile]:
    """The schemes that were not chosen. Other texts were timed then: speeds are scaled by the chosen one's of now."""
    quantization = manifest.lineage.quantization
    if quantization is None:
        return []
    measured = [
        (each, each.texts_per_second, each.min_cosine)
        for each in quantization.candidates
        if each.texts_per_second and each.min_cosine is not None
    ]
    then = next((speed for each, speed, _ in measured if each.name == quantization.chosen), None)
    now = next(
        (
            one.speed.get("texts_per_second")
            for one in report.variants
            if one.quantizer == quantization.chosen and one.vector_dtype == "float32"
        ),
        None,
    )
    if not then or not now:
        return []
    return [
        PlottedFile(
            each.name,
            each.bytes,
            speed * now / then,
            closeness,
            "tried" if each.passed else "failed",
        )
        for each, speed, closeness in measured
        if each.name != quantization.chosen
    ]


def front(found: Sequence[PlottedFile]) -> list[tuple[float, float]]:
    """(texts per second, 1 − min cosine) of those that nothing beats on both, by speed."""
    points = sorted({(each.texts_per_second, _loss(each)) for each in found})
    return [
        point
        for point in points
        if not any(other != point and other[0] >= point[0] and other[1] <= point[1] for other in points)
    ]


def _loss(each: PlottedFile) -> float:
    return max(_FINEST, 1 - each.min_cosine)
