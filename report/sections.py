"""Sections and tables of a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def section(title: str, body: str, text: str = "") -> str:
    """A part of the page under a heading; `text` is escaped, `body` is not."""
    said = f"<p class='soft'>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def visible(text: str) -> str:
    """`text` with control characters as Python escapes: an invisible one must still be told apart."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown if shown.strip() else repr(text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: set[int], wrapped: int | None = None) -> str:
    """A table that scrolls when it is too wide; cells are escaped, columns in `left` are text, `wrapped` ones break."""
    head = "".join(
        f"<th scope='col'{' class=text' if index in left else ''}>{escape(name)}</th>"
        for index, name in enumerate(header)
    )
    body = "".join(
        f"<tr>{''.join(_td(cell, index in left, index == wrapped) for index, cell in enumerate(row))}</tr>"
        for row in rows
    )
    return f"<div class='scroll' tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _td(cell: str, left: bool, wrapped: bool) -> str:
    state = {"✓": "good", "✗": "bad"}.get(cell[:1], "")
    classes = " ".join(name for name, on in (("text", left), ("wrap", wrapped), (state, state)) if on)
    return f"<td class='{classes}'>{escape(cell)}</td>"
