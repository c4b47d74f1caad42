"""The grid as a table for a terminal, and as a page with pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from emb.files import atomic_path
from emb.report.charts import Dot, dots, heat_grid
from emb.report.page import page
from emb.report.tables import table

if TYPE_CHECKING:
    from emb.validate.grid.grid import Grid
    from emb.validate.grid.measurements import MeasuredFile

_HEADER = ("file", "MB", "dims", "ms, one text", "texts/s", "quality", "min cosine", "")


def as_text(grid: Grid) -> str:
    """Every point with its figures and state, and what was chosen."""
    rows = [(*_cells(point), _state(point, grid)) for point in _ordered(grid)]
    said = (
        [f"{grid.choice.target}: {grid.choice.point.name}, {grid.choice.why}\n{grid.choice.point.folder}"]
        if grid.choice
        else []
    )
    return "\n\n".join([table(rows, _HEADER), *said, f"report: {grid.report}"])


def write_page(grid: Grid, path: Path) -> None:
    """Write the page; it asks for nothing from anywhere."""
    title = f"{len(grid.points)} files of one model"
    said = (
        f"Quality is the share of a text's ten nearest neighbours, as {escape(grid.reference)} has them in full, that a"
        f" file's vector finds among {escape(grid.reference)}'s own vectors cut to the same dims: the file answers"
        f" queries, the reference has encoded the documents. Over {grid.texts:,} texts ({escape(grid.origin)}). Times"
        f" are the best of interleaved rounds on {escape(grid.processor)}, {grid.threads or 'all'} threads; one text is"
        " a short one, tokenisation included."
    )
    body = (
        f"<header><h1>{escape(title)}</h1><p"
        f" class='soft'>{said}</p>{_verdict(grid)}</header>{_pictures(grid)}{_table(grid)}"
    )
    with atomic_path(path) as partial:
        partial.write_text(page(escape(title), body), encoding="utf-8")


def _verdict(grid: Grid) -> str:
    if grid.choice is None:
        return ""
    return (
        f"<div class='verdict good'>{escape(grid.choice.target)}:"
        f" {escape(grid.choice.point.name)}</div><p>{escape(grid.choice.why)}.</p>"
    )


def _pictures(grid: Grid) -> str:
    found = _ordered(grid)
    states = [point.state if grid.choice is None or point is not grid.choice.point else "chosen" for point in found]
    dotted = [
        Dot(number, point.name, 0.0, point.quality, state)
        for number, (point, state) in enumerate(zip(found, states, strict=True), 1)
    ]
    charts = [
        dots(
            f"Quality and {name}",
            [replace(dot, x=value(point)) for dot, point in zip(dotted, found, strict=True)],
            label,
            "quality",
        )
        for name, label, value in _COSTS
    ]
    grids = [_heat(dtype, grid.points) for dtype in dict.fromkeys(point.weight_dtype for point in grid.points)]
    return _section("What each file costs and gives", charts) + _section("Layers × dims", grids)


_COSTS: tuple[tuple[str, str, Callable[[MeasuredFile], float]], ...] = (
    ("size", "MB (smaller ←)", lambda point: point.bytes / 1e6),
    ("latency", "ms for one short text (faster ←)", lambda point: point.latency_ms),
    ("throughput", "texts per second (faster →)", lambda point: point.texts_per_second),
)


def _heat(dtype: str, points: Sequence[MeasuredFile]) -> str:
    values = {(point.layers, point.dim): point.quality for point in points if point.weight_dtype == dtype}
    return heat_grid(f"Quality, {dtype}", values, "layers", "dim", None, lambda value: f"{value:.3f}")


def _section(title: str, figures: Sequence[str]) -> str:
    return f"<section><h2>{title}</h2><div class='many'>{''.join(figures)}</div></section>"


def _row(number: int, point: MeasuredFile, grid: Grid) -> str:
    cells = "".join(f"<td>{escape(_shown(cell))}</td>" for cell in _cells(point))
    state, command = escape(_state(point, grid)), escape(point.command)
    return (
        f"<tr class='{point.state}'><td>{number}</td>{cells}<td class='text'>{state}</td>"
        f"<td class='text'><code>{command}</code></td></tr>"
    )


def _table(grid: Grid) -> str:
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("", *_HEADER, "made by"))
    rows = "".join(_row(number, point, grid) for number, point in enumerate(_ordered(grid), 1))
    return (
        "<section><h2>All of them</h2><div class='scroll'"
        f" tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _ordered(grid: Grid) -> list[MeasuredFile]:
    """Best quality first."""
    return sorted(grid.points, key=lambda point: -point.quality)


def _cells(point: MeasuredFile) -> Sequence[str | float | None]:
    return (
        point.name,
        f"{point.bytes / 1e6:.1f}",
        point.dim,
        f"{point.latency_ms:.2f}",
        f"{point.texts_per_second:.0f}",
        f"{point.quality:.3f}",
        _cosine(point),
    )


def _cosine(point: MeasuredFile) -> str:
    return "" if point.min_cosine is None else f"{point.min_cosine:.4f}"


def _shown(cell: str | float | None) -> str:
    return "" if cell is None else str(cell)


def _state(point: MeasuredFile, grid: Grid) -> str:
    if grid.choice is not None and point is grid.choice.point:
        return "chosen"
    return point.reason
