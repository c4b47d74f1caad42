"""The list of commands in `emb --help`: under headings, in the order in which one comes to need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

_MARGIN = 4  # columns: the indent of a list and the gap behind its names


class Sections(click.Group):
    """A group that lists its commands by `sections`: a heading, and the names below it."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list a section, all in the same two columns."""
        wide = max(map(len, self.commands))
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([self._line(name, wide, formatter.width) for name in names])

    def _line(self, name: str, wide: int, width: int) -> tuple[str, str]:
        return name.ljust(wide), self.commands[name].get_short_help_str(width - wide - _MARGIN)
