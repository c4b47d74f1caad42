"""The parity report as a table for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emb.artifact.lineage import HealingRecord
from emb.report.gain_table import HEADER, gain_rows, gain_text
from emb.validate.findings import ParityReport, VariantReport
from emb.validate.labels import gate_text, number, teacher_cosine


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
                console.print(
                    f"FAILED {found.file}: {gate_text(gate)}{f' ({found.error})' if found.error else ''}",
                    style="red",
                    markup=False,
                )
        console.print(
            f"{'passed' if report.passed else 'FAILED'}: {Path(report.artifact) / 'report.html'}",
            markup=False,
            soft_wrap=True,
        )
    return capture.get().rstrip("\n")


def _terminal_table(report: ParityReport) -> Any:
    from rich.table import Table

    table = Table(
        title=f"{report.layers} layers × {report.dim} dims", box=None, header_style="bold", title_justify="left"
    )
    table.add_column("file", overflow="fold")
    for name in ("MB", "min cos", "mean cos", "overlap", "teacher", "p50 ms", "p95 ms", "texts/s", "gate"):
        table.add_column(name, justify="right", no_wrap=True)
    for found in report.variants:
        table.add_row(*_terminal_row(found), style=None if found.passed else "red")
    speed = report.slice["speed"]["texts_per_second"]
    table.add_row(
        "torch slice",
        "",
        "",
        "",
        "",
        number(teacher_cosine(report.slice["teacher"]), 4),
        "",
        "",
        f"{speed:,.0f}",
        "",
        style="dim",
    )
    return table


def _healing_table(healing: HealingRecord) -> Any:
    from rich.table import Table

    table = Table(*HEADER, title=gain_text(healing), box=None, header_style="bold", title_justify="left")
    for row in gain_rows(healing):
        table.add_row(*row)
    return table


def _terminal_row(found: VariantReport) -> list[str]:
    client = found.settings.get("as a client", {})
    return [
        found.file,
        f"{found.bytes / 1e6:.1f}",
        number(found.min_cosine, 5),
        number(client.get("mean_cosine"), 5),
        number(client.get("overlap_at_10"), 3),
        number(teacher_cosine(found.teacher), 4),
        number(found.latency_ms.get("p50"), 1),
        number(found.latency_ms.get("p95"), 1),
        number(found.speed.get("texts_per_second"), 0),
        "passed" if found.passed else "FAILED",
    ]
