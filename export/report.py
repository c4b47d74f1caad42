"""The parity report for people: a terminal table and a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import ArtifactError
from emb.export.charts import Series, Spot, heat_grid, line_chart, scatter
from emb.export.gain_table import HEADER, gain_rows, gain_text
from emb.export.page import page
from emb.files import atomic_path, read_json
from emb.manifest import Manifest, is_artifact, weights_name
from emb.runs import run_of

if TYPE_CHECKING:
    from emb.export.validate import Gate, ParityReport, VariantReport

# Below this a cosine differs from 1 only by the rounding of float32 sums, and a log axis has no zero.
_FINEST = 1e-7
_FIGURES = (
    ("max_abs_diff", "max abs diff"), ("mean_cosine", "mean cosine"), ("p01_cosine", "p01 cosine"),
    ("min_cosine", "min cosine"), ("spearman", "Spearman"), ("overlap_at_10", "overlap@10"),
)


@dataclass(frozen=True)
class Candidate:
    """One point of the size–speed–quality picture; `state` is ships, tried or failed."""

    name: str
    bytes: float
    texts_per_second: float
    min_cosine: float
    state: str


def as_text(report: ParityReport) -> str:
    """The report as a table for a terminal, or for a file or pipe at a width that holds it."""
    from rich.console import Console

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=130)
    with console.capture() as capture:
        console.print(_terminal_table(report))
        if report.healing:
            console.print(_healing_table(report.healing))
        console.print(f"teacher: {report.teacher['name'] or report.teacher['reason']}", markup=False)
        for found in report.variants:
            for gate in (gate for gate in found.gates if not gate.passed):
                console.print(f"FAILED {found.file}: {_gate_text(gate)}{f' ({found.error})' if found.error else ''}", style="red", markup=False)
        console.print(f"{'passed' if report.passed else 'FAILED'}: {Path(report.artifact) / 'report.html'}", markup=False, soft_wrap=True)
    return capture.get().rstrip("\n")


def _terminal_table(report: ParityReport) -> Any:
    from rich.table import Table

    table = Table(title=f"{report.layers} layers × {report.dim} dims", box=None, header_style="bold", title_justify="left")
    table.add_column("file", overflow="fold")
    for name in ("MB", "min cos", "mean cos", "overlap", "teacher", "p50 ms", "p95 ms", "texts/s", "gate"):
        table.add_column(name, justify="right", no_wrap=True)
    for found in report.variants:
        table.add_row(*_terminal_row(found), style=None if found.passed else "red")
    speed = report.slice["speed"]["texts_per_second"]
    table.add_row("torch slice", "", "", "", "", _number(_teacher_cosine(report.slice["teacher"]), 4), "", "", f"{speed:,.0f}", "", style="dim")
    return table


def _healing_table(healing: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(*HEADER, title=gain_text(healing), box=None, header_style="bold", title_justify="left")
    for row in gain_rows(healing):
        table.add_row(*row)
    return table


def _terminal_row(found: VariantReport) -> list[str]:
    client = found.settings.get("as a client", {})
    return [
        found.file, f"{found.bytes / 1e6:.1f}", _number(found.min_cosine, 5), _number(client.get("mean_cosine"), 5), _number(client.get("overlap_at_10"), 3),
        _number(_teacher_cosine(found.teacher), 4), _number(found.latency_ms.get("p50"), 1), _number(found.latency_ms.get("p95"), 1),
        _number(found.speed.get("texts_per_second"), 0), "passed" if found.passed else "FAILED",
    ]


def write_report(folder: Path, manifest: Manifest, report: ParityReport) -> None:
    """Write `folder/report.html`, atomically."""
    with atomic_path(folder / "report.html") as partial:
        partial.write_text(render(folder, manifest, report), encoding="utf-8")


def render(folder: Path, manifest: Manifest, report: ParityReport) -> str:
    """The page: verdict, figures, pictures, and how they came about."""
    title = f"Parity report: {report.layers} layers × {report.dim} dims"
    parts = [
        _head(title, manifest, report), _cards(report), _closeness(report), _beside(report), _pareto(manifest, report), _teacher(manifest, report),
        _healing(report), _curves(folder), _grids(folder, manifest, report), _worst(report), _gates(report), _method(manifest, report),
    ]
    return page(escape(title), "\n".join(part for part in parts if part))


def _head(title: str, manifest: Manifest, report: ParityReport) -> str:
    failed = sum(not found.passed for found in report.variants)
    count = len(report.variants)
    verdict = f"✓ All {count} files passed" if not failed else f"✗ {failed} of {count} files failed"
    if count == 1 and not failed:
        verdict = "✓ The file passed"
    teacher = (manifest.lineage.get("teacher") or {}).get("name")
    origin = f"A student of <b>{escape(str(teacher))}</b>, cut" if teacher else "A model cut"
    return (
        f"<header><h1>{escape(title)}</h1><p class='soft'>{origin} to {report.layers} layers and {report.dim} dims; the very files that ship, "
        f"compared with the torch model they were made from on {sum(report.texts.values()):,} texts.</p>"
        f"<div class='verdict {'bad' if failed else 'good'}'>{verdict}</div></header>"
    )


def _cards(report: ParityReport) -> str:
    return f"<section class='cards' aria-label='Files'>{''.join(_card(found, report) for found in report.variants)}</section>"


def _card(found: VariantReport, report: ParityReport) -> str:
    baseline = report.slice["speed"]["texts_per_second"]
    speed = found.speed.get("texts_per_second")
    facts = {
        "size": _size(found.bytes), "throughput": f"{speed:,.0f} texts/s" if speed else "–", "against torch": f"{speed / baseline:.1f}×" if speed else "–",
        "one text, p50 / p95": f"{_number(found.latency_ms.get('p50'), 1)} / {_number(found.latency_ms.get('p95'), 1)} ms", "load": f"{found.load_seconds:.2f} s",
    }
    state = "<span class='good'>✓ passed</span>" if found.passed else f"<span class='bad'>✗ failed</span>{_error(found)}"
    names = f"<p class='soft'>also as {', '.join(f'<code>{escape(name)}</code>' for name in found.same_as)}</p>" if found.same_as else ""
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return (
        f"<article class='card'><h3>{escape(_precision(found))} · {state}</h3><code class='soft'>{escape(found.file)}</code>{names}"
        f"<div class='big'>{_number(found.min_cosine, 5)}</div><div class='soft'>{_quality_name(found)}</div><dl>{rows}</dl></article>"
    )


def _error(found: VariantReport) -> str:
    return f"<p class='bad'>{escape(found.error)}</p>" if found.error else ""


def _quality_name(found: VariantReport) -> str:
    return "smallest cosine of the ±1 vectors of any text" if found.vector_dtype == "ubinary" else "smallest cosine to the torch slice, of any text"


def _closeness(report: ParityReport) -> str:
    rows = [
        [_short_name(found), setting, *(_figure(name, figures.get(name)) for name, _ in _FIGURES)]
        for found in report.variants for setting, figures in found.settings.items()
    ]
    table = _table(["file", "setting", *(label for _, label in _FIGURES)], rows, {0, 1})
    return _section("Closeness to the torch slice", table, "Each file, encoding as a client does, one text at a time, and in mixed batches padded on either side.")


def _beside(report: ParityReport) -> str:
    """Each file of another exporter under ours of the same precision."""
    rows = []
    for other in (one for one in report.variants if one.exporter != "emb" and one.speed):
        ours = next((one for one in report.variants if one.exporter == "emb" and one.speed and _numbers(one) == _numbers(other)), None)
        rows += [_measured(one, other) for one in (ours, other) if one]
    if not rows:
        return ""
    table = _table(["file", "min cosine", "mean cosine", "min cosine, padded left", "size", "one text, p50", "texts/s", ""], rows, {0})
    text = "The same torch folder through another exporter, each file run by the runtime it is made for. Padding on the left is shown and not demanded of optimum."
    return _section("Beside another exporter", table, text)


def _measured(found: VariantReport, beside: VariantReport) -> list[str]:
    client, left = found.settings["as a client"], found.settings["mixed, left padding"]
    cosines = [f"{found.min_cosine:.6f}", _figure("mean_cosine", client["mean_cosine"]), _figure("min_cosine", left["min_cosine"])]
    speed = found.speed["texts_per_second"]
    return [_precision(found), *cosines, _size(found.bytes), f"{found.latency_ms['p50']:.2f} ms", f"{speed:,.0f}", f"{speed / beside.speed['texts_per_second']:.2f}×"]


def _numbers(found: VariantReport) -> tuple[str, str]:
    return found.weight_dtype, found.vector_dtype


def _pareto(manifest: Manifest, report: ParityReport) -> str:
    found = candidates(manifest, report)
    if not found:
        return ""
    largest = max(each.bytes for each in found)
    spots = [Spot(number, each.name, each.texts_per_second, _loss(each), each.bytes / largest, each.state) for number, each in enumerate(found, 1)]
    gate = next((limit for one in report.variants if one.weight_dtype == "int8" and one.vector_dtype == "float32" for limit in (g.limit for g in one.gates)), None)
    line = (1 - gate, f"gate of int8: {gate:g}") if gate and gate < 1 else None
    chart = scatter("Speed, closeness and size (area)", spots, "texts per second →", "1 − min cosine (better ↑)", front(found), line)
    rows = [[str(n), f"{each.name}: {_STATES[each.state]}", _size(each.bytes), f"{each.texts_per_second:,.0f}", f"{each.min_cosine:.6f}"] for n, each in enumerate(found, 1)]
    table = _table(["", "file or candidate", "size", "texts/s", "min cosine"], rows, {1}, wrapped=1)
    text = "The line joins those that nothing else beats on both speed and closeness. Recipes that were tried and not chosen were measured at export, on fewer texts."
    return _section("Size, speed, quality", f"<div class='pair'>{chart}<div>{table}</div></div>", text)


_STATES = {"ships": "passed", "tried": "tried, not chosen", "failed": "failed its gate"}


def candidates(manifest: Manifest, report: ParityReport) -> list[Candidate]:
    """Files of the folder, and int8 recipes that were tried for it."""
    shipped = [
        Candidate(_precision(one), one.bytes, one.speed["texts_per_second"], one.min_cosine, "ships" if one.passed else "failed")
        for one in report.variants if one.vector_dtype == "float32" and one.speed
    ]
    return shipped + _tried(manifest, report)


def _tried(manifest: Manifest, report: ParityReport) -> list[Candidate]:
    """The recipes that were not chosen. Other texts were timed then: speeds are scaled by what the chosen one does now."""
    quantization = manifest.lineage.get("quantization") or {}
    measured = [each for each in quantization.get("candidates", []) if each.get("texts_per_second") and each.get("min_cosine") is not None]
    then = next((each["texts_per_second"] for each in measured if each["name"] == quantization.get("chosen")), None)
    now = next((one.speed.get("texts_per_second") for one in report.variants if one.quantizer == quantization.get("chosen") and one.vector_dtype == "float32"), None)
    if not then or not now:
        return []
    others = [each for each in measured if each["name"] != quantization["chosen"]]
    return [Candidate(each["name"], each["bytes"], each["texts_per_second"] * now / then, each["min_cosine"], "tried" if each["passed"] else "failed") for each in others]


def front(found: Sequence[Candidate]) -> list[tuple[float, float]]:
    """(texts per second, 1 − min cosine) of those that nothing beats on both, by speed."""
    points = sorted({(each.texts_per_second, _loss(each)) for each in found})
    return [point for point in points if not any(other != point and other[0] >= point[0] and other[1] <= point[1] for other in points)]


def _loss(each: Candidate) -> float:
    return max(_FINEST, 1 - each.min_cosine)


def _teacher(manifest: Manifest, report: ParityReport) -> str:
    if report.teacher["name"] is None or report.teacher["reason"]:
        return _section("Closeness to the teacher", f"<p>Not measured: {escape(str(report.teacher['reason']))}.</p>")
    models = [("torch slice", report.slice["teacher"]), *((_short_name(found), found.teacher) for found in report.variants)]
    rows = [[name, *(_figure(key, figures.get(key)) for key, _ in _FIGURES)] for name, figures in models if figures]
    text = (
        f"{report.teacher['name']}, cut to {report.dim} of its {report.teacher['dim']} dims and scaled to length 1 again, "
        f"on {report.teacher['texts']} texts. Not a gate: it is what training reached."
    )
    return _section("Closeness to the teacher", _table(["model", *(label for _, label in _FIGURES)], rows, {0}), text)


def _healing(report: ParityReport) -> str:
    return _section("Healing", _table(HEADER, gain_rows(report.healing), {0}), gain_text(report.healing)) if report.healing else ""


def _curves(folder: Path) -> str:
    log = read_log(folder)
    loss = [(float(line["step"]), float(line["loss"])) for line in log if isinstance(line.get("loss"), int | float)]
    evaluations = [line for line in log if isinstance(line.get("cosine"), dict)]
    charts = [line_chart("Training loss", [Series("loss", *_columns(loss))], "step", "loss")] if len(loss) > 1 else []
    for key, label in (("cosine", "Held-out cosine to the teacher"), ("overlap", "Held-out neighbour overlap@10")):
        pairs = list(dict.fromkeys(pair for line in evaluations for pair in line.get(key, {})))
        lines = [Series(pair.replace("x", " × "), *_columns([(line["step"], line[key][pair]) for line in evaluations if pair in line.get(key, {})])) for pair in pairs]
        if len(evaluations) > 1 and lines:
            charts.append(line_chart(label, lines, "step", key))
    return _section("Training", f"<div class='many'>{''.join(charts)}</div>") if charts else ""


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The training log of the run that `folder` lies in; lines that a crash cut short are left out."""
    run = run_of(folder)
    if run is None or not (run / "log.jsonl").is_file():
        return []
    found = []
    for line in (run / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


def _grids(folder: Path, manifest: Manifest, report: ParityReport) -> str:
    here = (report.layers, report.dim)
    grids = []
    for key, label in (("cosine", "Held-out cosine to the teacher"), ("overlap", "Held-out neighbour overlap@10")):
        values = {(pair["layers"], pair["dim"]): float(pair[key]) for pair in _pairs(folder, manifest) if isinstance(pair.get(key), int | float)}
        if len(values) > 1:
            grids.append(heat_grid(label, values, "layers", "dim", here, lambda value: f"{value:.3f}"))
    grids += [heat_grid(title, values, "layers", "dim", here, lambda value: f"{value:.1f}") for title, values in _evaluated(folder).items()]
    text = "Every exit that was trained with this one; the outlined cell is this artifact."
    return _section("Layers × dims", f"<div class='many'>{''.join(grids)}</div>", text) if grids else ""


def _pairs(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """The pairs of the whole student, where the run that holds the artifact is at hand; a slice knows its own only."""
    run = run_of(folder)
    return Manifest.load(run / "student").pairs if run is not None and is_artifact(run / "student") else manifest.pairs


def _evaluated(folder: Path) -> dict[str, dict[tuple[int, int], float]]:
    """Grids of an `evaluation.json` of the artifact or its run, by title."""
    places = [folder, *([run] if (run := run_of(folder)) else [])]
    path = next((place / "evaluation.json" for place in places if (place / "evaluation.json").is_file()), None)
    grids: dict[str, dict[tuple[int, int], float]] = {}
    if path is None:
        return grids
    try:
        evaluation = read_json(path)
        for score in (score for score in evaluation["scores"] if score["model"] != evaluation["teacher"]):
            title = f"{score['model']}, {score['task']}: {score['metric']}, {score['side']}, {score['weights']}" + (f", {score['storage']}" if score.get("storage") else "")
            grids.setdefault(title, {})[score["layers"], score["dim"]] = float(score["value"])
    except (ArtifactError, KeyError, TypeError):
        return {}  # somebody else's file of that name
    return grids


def _worst(report: ParityReport) -> str:
    rows = [
        [_short_name(found), f"{one['cosine']:.6f}", one["setting"], f"{one['kind']}{', ' + one['name'] if one['name'] else ''}", _visible(one["text"])]
        for found in report.variants for one in found.worst
    ]
    return _section("Texts that moved most", _table(["file", "cosine", "setting", "kind", "text"], rows, {0, 2, 3, 4}, wrapped=4)) if rows else ""


def _gates(report: ParityReport) -> str:
    rows = [
        [_short_name(found), gate.name, _gate_value(gate.value), f"{'≤' if gate.at_most else '≥'} {gate.limit:.6g}", "✓ passed" if gate.passed else "✗ failed"]
        for found in report.variants for gate in found.gates
    ]
    return _section("Gates", _table(["file", "demand", "found", "limit", ""], rows, {0, 1, 4}))


def _method(manifest: Manifest, report: ParityReport) -> str:
    machine = report.machine
    counts = report.texts
    lines = [
        f"{counts['text']} ordinary texts ({escape(report.origin)}), {counts['odd']} odd ones (empty, other scripts, control characters, markup, one letter …) "
        f"and {counts['long']} around and beyond the limit of {manifest.max_length} tokens; each odd and long text as a query and as a document.",
        "The torch slice is this folder as sentence-transformers itself loads it, in fp32.",
        "Spearman compares all pairwise cosines; overlap@10 is the share of the ten nearest neighbours that both agree on.",
        "Latency is one text at a time, tokenisation included, over the ordinary texts; throughput is the ordinary texts at once, best of several runs.",
        f"Measured {escape(report.created)} on {escape(str(machine['processor']))}, {machine['threads']} threads, {escape(_runtimes(machine))}.",
    ]
    lines += _chosen(manifest)
    return _section("How it was measured", "".join(f"<p class='soft'>{line}</p>" for line in lines))


def _runtimes(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {machine[name]}" for name in ("onnxruntime", "openvino", "ctranslate2") if name in machine)


def _chosen(manifest: Manifest) -> list[str]:
    """Where the 8-bit file was chosen, and what would be lost elsewhere."""
    quantization = manifest.lineage.get("quantization") or {}
    if not quantization.get("processor"):
        return []
    share = next((each.get("overflow") for each in quantization["candidates"] if each["chosen"]), None)
    if not share:
        risk = "no sum of two products overflows 16 bits, whatever the processor"
    else:
        risk = f"on processors without VNNI {1e6 * share:,.0f} of a million sums of two products would overflow 16 bits; export with --reduce-range for those"
    return [f"The 8-bit file was chosen on {escape(str(quantization['processor']))}; {risk}."]


def _section(title: str, body: str, text: str = "") -> str:
    said = f"<p class='soft'>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def _visible(text: str) -> str:
    # Control characters as their Python escapes: an invisible text must still be told apart.
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown if shown.strip() else repr(text)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: set[int], wrapped: int | None = None) -> str:
    head = "".join(f"<th scope='col'{' class=text' if index in left else ''}>{escape(name)}</th>" for index, name in enumerate(header))
    body = "".join(f"<tr>{''.join(_td(cell, index in left, index == wrapped) for index, cell in enumerate(row))}</tr>" for row in rows)
    return f"<div class='scroll' tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _td(cell: str, left: bool, wrapped: bool) -> str:
    state = {"✓": "good", "✗": "bad"}.get(cell[:1], "")
    classes = " ".join(name for name, on in (("text", left), ("wrap", wrapped), (state, state)) if on)
    return f"<td class='{classes}'>{escape(cell)}</td>"


def _precision(found: VariantReport) -> str:
    return f"{_short_name(found)} ({found.quantizer})" if found.quantizer else _short_name(found)


def _short_name(found: VariantReport) -> str:
    weights = weights_name(found.weight_dtype, found.exporter)
    return weights if found.vector_dtype == "float32" else f"{weights} → {found.vector_dtype}"


def _teacher_cosine(figures: dict[str, float | None] | None) -> float | None:
    return figures["mean_cosine"] if figures else None


def _gate_text(gate: Gate) -> str:
    return f"{gate.name} is {_gate_value(gate.value)}, must be {'at most' if gate.at_most else 'at least'} {gate.limit:.6g}"


def _gate_value(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.1e}" if name == "max_abs_diff" else f"{value:.6f}" if "cosine" in name else f"{value:.4f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
