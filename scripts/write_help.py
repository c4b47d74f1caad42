"""Write `docs/cli.md` from the commands' own --help, or with --check say whether it is current."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from emb.cli import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_TOP = (
    "# Command line\n\nGenerated from `--help` by `scripts/write_help.py`; `scripts/test.py` checks that it is"
    " current.\n"
)


def page() -> str:
    """The page: one section per command, each its help as a terminal of 100 columns shows it."""
    top = click.Context(cli, info_name="emb", terminal_width=100, **cli.context_settings)
    return "\n".join([_TOP, _section(top), *(_section(context) for context in _below(top))])


def _below(group: click.Context) -> Iterator[click.Context]:
    """The commands of a group by their names, each before those inside it."""
    if isinstance(group.command, click.Group):
        for name, command in sorted(group.command.commands.items()):
            context = click.Context(command, info_name=name, parent=group)
            yield context
            yield from _below(context)


def _section(context: click.Context) -> str:
    return f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"


def main() -> int:
    """Write the page; with --check compare instead, and return 1 if it is out of date."""
    if "--check" not in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
    print("docs/cli.md is current" if current else "docs/cli.md is out of date: run python scripts/write_help.py")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
