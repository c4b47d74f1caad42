"""The parity report as a page with pictures."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Manifest
from emb.files import atomic_path
from emb.report.gain_table import HEADER, gain_rows, gain_text
from emb.report.page import page
from emb.report.sections import section, table, visible
from emb.validate.findings import ParityReport, VariantReport
from emb.validate.labels import figure, gate_value, number, precision, short_name, size
from emb.validate.pareto import pareto
from emb.validate.training_charts import curves, grids

_FIGURES = (
    ("max_abs_diff", "max abs diff"),
    ("mean_cosine", "mean cosine"),
    ("p01_cosine", "p01 cosine"),
    ("min_cosine", "min cosine"),
    ("spearman", "Spearman"),
    ("overlap_at_10", "overlap@10"),
)


def write_report(folder: Path, manifest: Manifest, report: ParityReport) -> None:
    """Write `folder/report.html`, atomically."""
    with atomic_path(folder / "report.html") as partial:
        partial.write_text(render(folder, manifest, report), encoding="utf-8")


def render(folder: Path, manifest: Manifest, report: ParityReport) -> str:
    """The page: verdict, figures, pictures, and how they came about."""
    title = f"Parity report: {report.layers} layers × {report.dim} dims"
    parts = [
        _head(title, manifest, report),
        _cards(report),
        _closeness(report),
        _beside(report),
        pareto(manifest, report),
        _closeness_to_teacher(manifest, report),
        _healing(report),
        curves(folder),
        grids(folder, manifest, report),
        _worst(report),
        _gates(report),
        _method(manifest, report),
    ]
    return page(escape(title), "\n".join(part for part in parts if part))


def _head(title: str, manifest: Manifest, report: ParityReport) -> str:
    failed = sum(not found.passed for found in report.variants)
    count = len(report.variants)
    verdict = f"✓ All {count} files passed" if not failed else f"✗ {failed} of {count} files failed"
    if count == 1 and not failed:
        verdict = "✓ The file passed"
    teacher = manifest.lineage.teacher
    origin = f"A student of <b>{escape(teacher.name)}</b>, cut" if teacher else "A model cut"
    learned = (
        f" In training, texts were cut at {manifest.learned_length} tokens; these files read up to"
        f" {manifest.max_length}."
        if manifest.learned_length
        else ""
    )
    return (
        f"<header><h1>{escape(title)}</h1><p class='soft'>{origin} to {report.layers} layers and {report.dim} dims; the"
        f" very files that ship, compared with the torch model they were made from on {sum(report.texts.values()):,}"
        f" texts.{learned}</p><div class='verdict {'bad' if failed else 'good'}'>{verdict}</div></header>"
    )


def _cards(report: ParityReport) -> str:
    return (
        "<section class='cards'"
        f" aria-label='Files'>{''.join(_card(found, report) for found in report.variants)}</section>"
    )


def _card(found: VariantReport, report: ParityReport) -> str:
    baseline = report.slice["speed"]["texts_per_second"]
    speed = found.speed.get("texts_per_second")
    facts = {
        "size": size(found.bytes),
        "throughput": f"{speed:,.0f} texts/s" if speed else "–",
        "against torch": f"{speed / baseline:.1f}×" if speed else "–",
        "one text, p50 / p95": (
            f"{number(found.latency_ms.get('p50'), 1)} / {number(found.latency_ms.get('p95'), 1)} ms"
        ),
        "load": f"{found.load_seconds:.2f} s",
    }
    state = (
        "<span class='good'>✓ passed</span>" if found.passed else f"<span class='bad'>✗ failed</span>{_error(found)}"
    )
    names = (
        f"<p class='soft'>also as {', '.join(f'<code>{escape(name)}</code>' for name in found.same_as)}</p>"
        if found.same_as
        else ""
    )
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return (
        f"<article class='card'><h3>{escape(precision(found))} · {state}</h3><code"
        f" class='soft'>{escape(found.file)}</code>{names}<div class='big'>{number(found.min_cosine, 5)}</div><div"
        f" class='soft'>{_quality_name(found)}</div><dl>{rows}</dl></article>"
    )


def _error(found: VariantReport) -> str:
    return f"<p class='bad'>{escape(found.error)}</p>" if found.error else ""


def _quality_name(found: VariantReport) -> str:
    return (
        "smallest cosine of the ±1 vectors of any text"
        if found.vector_dtype == "ubinary"
        else "smallest cosine to the torch slice, of any text"
    )


def _closeness(report: ParityReport) -> str:
    rows = [
        [short_name(found), setting, *(figure(name, figures.get(name)) for name, _ in _FIGURES)]
        for found in report.variants
        for setting, figures in found.settings.items()
    ]
    body = table(["file", "setting", *(label for _, label in _FIGURES)], rows, {0, 1})
    return section(
        "Closeness to the torch slice",
        body,
        "Each file, encoding as a client does, one text at a time, and in mixed batches padded on either side.",
    )


def _beside(report: ParityReport) -> str:
    """Each file of another exporter under ours of the same precision."""
    rows = []
    for other in (one for one in report.variants if one.exporter != "emb" and one.speed):
        ours = next(
            (
                one
                for one in report.variants
                if one.exporter == "emb" and one.speed and _numbers(one) == _numbers(other)
            ),
            None,
        )
        rows += [_measured(one, other) for one in (ours, other) if one]
    if not rows:
        return ""
    body = table(
        ["file", "min cosine", "mean cosine", "min cosine, padded left", "size", "one text, p50", "texts/s", ""],
        rows,
        {0},
    )
    text = (
        "The same torch folder through another exporter, each file run by the runtime it is made for. Padding on the"
        " left is shown and not demanded of optimum."
    )
    return section("Beside another exporter", body, text)


def _measured(found: VariantReport, beside: VariantReport) -> list[str]:
    client, left = found.settings["as a client"], found.settings["mixed, left padding"]
    cosines = [
        f"{found.min_cosine:.6f}",
        figure("mean_cosine", client["mean_cosine"]),
        figure("min_cosine", left["min_cosine"]),
    ]
    speed = found.speed["texts_per_second"]
    return [
        precision(found),
        *cosines,
        size(found.bytes),
        f"{found.latency_ms['p50']:.2f} ms",
        f"{speed:,.0f}",
        f"{speed / beside.speed['texts_per_second']:.2f}×",
    ]


def _numbers(found: VariantReport) -> tuple[str, str]:
    return found.weight_dtype, found.vector_dtype


def _closeness_to_teacher(manifest: Manifest, report: ParityReport) -> str:
    if report.teacher["name"] is None or report.teacher["reason"]:
        return section("Closeness to the teacher", f"<p>Not measured: {escape(str(report.teacher['reason']))}.</p>")
    models = [
        ("torch slice", report.slice["teacher"]),
        *((short_name(found), found.teacher) for found in report.variants),
    ]
    rows = [[name, *(figure(key, figures.get(key)) for key, _ in _FIGURES)] for name, figures in models if figures]
    text = (
        f"{report.teacher['name']}, cut to {report.dim} of its {report.teacher['dim']} dims and scaled to length 1"
        f" again, on {report.teacher['texts']} texts. Not a gate: it is what training reached."
    )
    return section("Closeness to the teacher", table(["model", *(label for _, label in _FIGURES)], rows, {0}), text)


def _healing(report: ParityReport) -> str:
    return (
        section("Healing", table(HEADER, gain_rows(report.healing), {0}), gain_text(report.healing))
        if report.healing
        else ""
    )


def _worst(report: ParityReport) -> str:
    rows = [
        [
            short_name(found),
            f"{one['cosine']:.6f}",
            one["setting"],
            f"{one['kind']}{', ' + one['name'] if one['name'] else ''}",
            visible(one["text"]),
        ]
        for found in report.variants
        for one in found.worst
    ]
    return (
        section(
            "Texts that moved most", table(["file", "cosine", "setting", "kind", "text"], rows, {0, 2, 3, 4}, wrapped=4)
        )
        if rows
        else ""
    )


def _gates(report: ParityReport) -> str:
    rows = [
        [
            short_name(found),
            gate.name,
            gate_value(gate.value),
            f"{'≤' if gate.at_most else '≥'} {gate.limit:.6g}",
            "✓ passed" if gate.passed else "✗ failed",
        ]
        for found in report.variants
        for gate in found.gates
    ]
    return section("Gates", table(["file", "demand", "found", "limit", ""], rows, {0, 1, 4}))


def _method(manifest: Manifest, report: ParityReport) -> str:
    machine = report.machine
    counts = report.texts
    lines = [
        (
            f"{counts['text']} ordinary texts ({escape(report.origin)}), {counts['odd']} odd ones (empty, other"
            f" scripts, control characters, markup, one letter …) and {counts['long']} around and beyond the limit of"
            f" {manifest.max_length} tokens, each odd and long text as a query and as a document; and"
            f" {counts.get('hard', 0)} made from the model itself: of its largest rows, its special tokens, the scripts"
            " of its vocabulary."
        ),
        "The torch slice is this folder as sentence-transformers itself loads it, in fp32.",
        (
            "Spearman compares all pairwise cosines; overlap@10 is the share of the ten nearest neighbours that both"
            " agree on."
        ),
        (
            "Latency is one text at a time, tokenisation included, over the ordinary texts; throughput is the ordinary"
            " texts at once, best of several runs."
        ),
        (
            f"Measured {escape(report.created)} on {escape(str(machine['processor']))}, {machine['threads']} threads,"
            f" {escape(_runtimes(machine))}."
        ),
    ]
    lines += _chosen(manifest)
    return section("How it was measured", "".join(f"<p class='soft'>{line}</p>" for line in lines))


def _runtimes(machine: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {machine[name]}" for name in ("onnxruntime", "openvino", "ctranslate2") if name in machine
    )


def _chosen(manifest: Manifest) -> list[str]:
    """Where the 8-bit file was chosen, and what would be lost elsewhere."""
    quantization = manifest.lineage.quantization
    if not quantization or not quantization.processor:
        return []
    share = next((each.overflow for each in quantization.candidates if each.chosen), None)
    if not share:
        risk = "no sum of two products overflows 16 bits, whatever the processor"
    else:
        risk = (
            f"on processors without VNNI {1e6 * share:,.0f} of a million sums of two products would overflow 16 bits;"
            " export with --reduce-range for those"
        )
    return [f"The 8-bit file was chosen on {escape(quantization.processor)}; {risk}."]
