"""The report of a vocabulary: what it costs, how much of it texts use, and what an adaptation changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emb.report.charts import Series, line_chart
from emb.report.page import page
from emb.report.sections import section, table
from emb.vocabulary.profile import Part, Profile, Setting


def vocabulary_page(name: str, found: Profile, changed: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page; `changed` are the facts of an adaptation, if there was one."""
    body = f"<h1>{name}: vocabulary</h1>"
    if changed:
        body += section("What was changed", table(("", ""), changed, {0, 1}))
    return page(f"{name}: vocabulary", body + _costs(found) + _use(found) + _texts(found))


def _costs(found: Profile) -> str:
    rows = [
        ("tokenizer", f"{found.kind}, {found.tokens:,} tokens"),
        ("table", f"{found.rows:,} × {found.hidden} = {found.rows * found.hidden / 1e6:.1f} M parameters"),
        ("share of the model", f"{found.share:.0%} of {found.parameters / 1e6:.1f} M parameters, and of an int8 file"),
        ("tokens that the texts use", f"{found.used:,}"),
    ]
    return section("What it costs", table(("", ""), rows, {0, 1}))


def _use(found: Profile) -> str:
    curve = [Series("covered", [float(x) for x, _ in found.curve], [y for _, y in found.curve])]
    chart = line_chart("Coverage", curve, "tokens kept, the most frequent first", "share of all occurrences")
    rows = [_setting_row(each, found.suggested) for each in found.settings]
    return section(
        "What trimming would leave",
        chart + table(SETTINGS, rows, {5}),
        "On texts that were held out: how much longer they get, and how many encode as before.",
    )


SETTINGS = ("coverage", "tokens", "M parameters", "tokens a text", "same encoding", "")


def _setting_row(each: Setting, suggested: float) -> tuple[str, ...]:
    return (
        f"{each.coverage:.2%}",
        f"{each.rows:,}",
        f"{each.parameters / 1e6:.1f}",
        f"× {each.length_ratio:.3f}",
        f"{each.same:.1%}",
        "suggested" if each.coverage == suggested else "",
    )


def settings_rows(found: Profile) -> list[tuple[str, ...]]:
    """The rows of the table of settings."""
    return [_setting_row(each, found.suggested) for each in found.settings]


PARTS = ("texts of", "texts", "words", "tokens a word", "unknown")


def part_rows(parts: Sequence[Part]) -> list[tuple[Any, ...]]:
    """A row for each source or script."""
    return [
        (each.name, f"{each.texts:,}", f"{each.words:,}", f"{each.fertility:.2f}", f"{each.unknown:.2%}")
        for each in parts
    ]


def _texts(found: Profile) -> str:
    return section(
        "How texts break",
        table(PARTS, part_rows(found.sources), {0}) + table(PARTS, part_rows(found.scripts), {0}),
        "English in an English tokenizer has 1.2 tokens a word; above two, new tokens are worth trying.",
    )
