"""Small charts as inline SVG: no library, no request, colours from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 46
_COLOURS = 6
_MAX_POINTS = 240


@dataclass(frozen=True)
class Series:
    """One line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Spot:
    """One numbered circle; `size` is its area's share of the largest, 0 to 1, `state` a CSS class."""

    number: int
    name: str
    x: float
    y: float
    size: float
    state: str


@dataclass(frozen=True)
class Dot:
    """One numbered circle of `dots`; `state` is a CSS class."""

    number: int
    name: str
    x: float
    y: float
    state: str


@dataclass(frozen=True)
class Axis:
    """A range of values laid over a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value; values outside are held at the edge."""
        value = min(max(value, self.low), self.high)
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (at - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Four to six round values inside the range."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers][:: max(1, math.ceil(len(powers) / 6))]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Lines over a common x; each line is named at its end and in the legend below."""
    series = [_thinned(line) for line in series if line.x]
    x = _axis([value for line in series for value in line.x], LEFT, WIDTH - RIGHT, pad=0)
    y = _axis([value for line in series for value in line.y], HEIGHT - BOTTOM, TOP, pad=0.06)
    paths = [
        f'<path class="line c{index % _COLOURS}{" dashed" if index >= _COLOURS else ""}" d="{_path(line, x, y)}"/>'
        for index, line in enumerate(series)
    ]
    ends = [
        f'<circle class="dot c{index % _COLOURS}" r="3.5" cx="{x.place(line.x[-1]):.1f}"'
        f' cy="{y.place(line.y[-1]):.1f}"/>'
        for index, line in enumerate(series)
    ]
    said = "; ".join(f"{line.name}: from {_short(line.y[0])} to {_short(line.y[-1])}" for line in series)
    legend = "".join(
        f'<li class="c{index % _COLOURS}">{escape(line.name)} <b>{_short(line.y[-1])}</b></li>'
        for index, line in enumerate(series)
    )
    return _figure(
        title, said, _axes(x, y, x_label, y_label) + "".join(paths + ends), f'<ul class="legend">{legend}</ul>'
    )


def scatter(
    title: str,
    spots: Sequence[Spot],
    x_label: str,
    y_label: str,
    front: Sequence[tuple[float, float]],
    gate: tuple[float, str] | None,
) -> str:
    """Numbered circles on a linear x and a logarithmic y whose small values are best and stand on top."""
    x = _axis([0.0, *(spot.x for spot in spots)], LEFT, WIDTH - RIGHT, pad=0.08, floor=0.0)
    values = [spot.y for spot in spots] + ([gate[0]] if gate else [])
    y = Axis(
        10 ** math.floor(math.log10(min(values)) - 0.3),
        10 ** math.ceil(math.log10(max(values)) + 0.1),
        TOP,
        HEIGHT - BOTTOM,
        log=True,
    )
    line = " ".join(f"{x.place(a):.1f},{y.place(b):.1f}" for a, b in front)
    marks = [f'<polyline class="front" points="{line}"/>'] if len(front) > 1 else []
    if gate:
        at = y.place(gate[0])
        marks.append(f'<line class="gate" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        marks.append(f'<text class="gate" x="{LEFT + 4}" y="{at - 5:.1f}">{escape(gate[1])}</text>')
    marks += [_spot(spot, x, y) for spot in sorted(spots, key=lambda spot: -spot.size)]
    said = "; ".join(f"{spot.number}: {spot.name}" for spot in spots)
    return _figure(title, said, _axes(x, y, x_label, y_label, _power) + "".join(marks))


def dots(title: str, found: Sequence[Dot], x_label: str, y_label: str) -> str:
    """Numbered circles of one size on two linear axes; those of the state "dominated" lie underneath."""
    x = _axis([dot.x for dot in found], LEFT, WIDTH - RIGHT, pad=0.08)
    y = _axis([dot.y for dot in found], HEIGHT - BOTTOM, TOP, pad=0.08)
    marks = [
        _spot(Spot(dot.number, dot.name, dot.x, dot.y, 0.0, dot.state), x, y)
        for dot in sorted(found, key=lambda dot: dot.state != "dominated")
    ]
    said = "; ".join(f"{dot.number}: {dot.name}" for dot in found)
    return _figure(title, said, _axes(x, y, x_label, y_label) + "".join(marks))


def heat_grid(
    title: str,
    values: dict[tuple[int, int], float],
    row_name: str,
    column_name: str,
    marked: tuple[int, int] | None,
    show: Callable[[float], str],
) -> str:
    """A table of (row, column) cells shaded by value; a real table, so that it can be read aloud and copied."""
    rows, columns = (sorted({key[side] for key in values}) for side in (0, 1))
    low, high = min(values.values()), max(values.values())
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    cells = {
        row: "".join(_cell(values.get((row, column)), low, high, (row, column) == marked, show) for column in columns)
        for row in rows
    }
    body = "".join(f'<tr><th scope="row">{row}</th>{cells[row]}</tr>' for row in rows)
    corner = f'<th class="corner">{escape(row_name)} ↓ {escape(column_name)} →</th>'
    table = f"<caption>{escape(title)}</caption><thead><tr>{corner}{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table class="heat">{table}</table></div>'


def _cell(value: float | None, low: float, high: float, marked: bool, show: Callable[[float], str]) -> str:
    if value is None:
        return '<td class="none">–</td>'
    share = (value - low) / (high - low) if high > low else 1.0
    classes = " ".join(name for name, on in (("strong", share > 0.55), ("here", marked)) if on)
    said = '<span class="hidden"> this artifact</span>' if marked else ""
    return f'<td class="{classes}" style="--share:{12 + 80 * share:.0f}%">{show(value)}{said}</td>'


def _spot(spot: Spot, x: Axis, y: Axis) -> str:
    place = f'cx="{x.place(spot.x):.1f}" cy="{y.place(spot.y):.1f}"'
    label = (
        f'<text class="number" x="{x.place(spot.x):.1f}" y="{y.place(spot.y) + 4:.1f}"'
        f' text-anchor="middle">{spot.number}</text>'
    )
    return (
        f'<g><title>{escape(spot.name)}</title><circle class="spot {spot.state}"'
        f' r="{9 + 11 * math.sqrt(spot.size):.1f}" {place}/>{label}</g>'
    )


def _figure(title: str, said: str, marks: str, below: str = "") -> str:
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(f"{title}. {said}", quote=True)}">{marks}</svg>'
    )
    return f"<figure><figcaption>{escape(title)}</figcaption>{picture}{below}</figure>"


def _axes(x: Axis, y: Axis, x_label: str, y_label: str, show_y: Callable[[float], str] | None = None) -> str:
    parts = [
        f'<g class="axis"><line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.place(tick):.1f}" y2="{y.place(tick):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y.place(tick) + 4:.1f}" text-anchor="end">{(show_y or _short)(tick)}</text></g>'
        for tick in y.ticks()
    ]
    parts += [
        f'<text class="tick" x="{x.place(tick):.1f}" y="{HEIGHT - BOTTOM + 18}"'
        f' text-anchor="middle">{_short(tick)}</text>'
        for tick in x.ticks()
    ]
    parts.append(
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}"'
        f' text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
        f' text-anchor="middle">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _axis(values: Sequence[float], start: float, end: float, pad: float, floor: float | None = None) -> Axis:
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    return Axis(low - pad * spread if floor is None else floor, high + pad * spread, start, end)


def _path(line: Series, x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x.place(a):.1f} {y.place(b):.1f}" for a, b in zip(line.x, line.y, strict=True))


def _thinned(line: Series) -> Series:
    """At most `_MAX_POINTS` points, each the mean of its stretch; the first and last stay as they are."""
    if len(line.x) <= _MAX_POINTS:
        return line
    size = math.ceil(len(line.x) / _MAX_POINTS)
    parts = [range(start, min(start + size, len(line.x))) for start in range(0, len(line.x), size)]
    xs, ys = ([sum(values[i] for i in part) / len(part) for part in parts] for values in (line.x, line.y))
    return Series(line.name, [line.x[0], *xs[1:-1], line.x[-1]], [line.y[0], *ys[1:-1], line.y[-1]])


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next((factor * power for factor in (1, 2, 2.5, 5) if step <= factor * power), 10 * power)


def _short(value: float) -> str:
    if value and (abs(value) < 1e-3):
        return _power(value)
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"
    return f"{value:.4g}"


def _power(value: float) -> str:
    exponent = math.log10(abs(value))
    digits = str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}" if abs(exponent - round(exponent)) < 1e-9 else f"{value:.1e}"
