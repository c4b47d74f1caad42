"""The command `emb migrate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step, typed
from emb.commands.options import THREADS
from emb.commands.shared import model_names, remote_code
from emb.report.tables import table

if TYPE_CHECKING:
    from emb.search.migration import Migrated
    from emb.search.migration.check import Check

DEFAULTS = {"sample": 2000, "seed": 0}


@click.command()
@click.argument("index", type=click.Path(path_type=Path), metavar="INDEX")
@click.option(
    "--to",
    metavar="MODEL",
    shell_complete=model_names,
    help="The new encoder of documents: a folder, a bundle or a name. Default: that of the migration under way.",
)
@click.option(
    "--query", metavar="MODEL", help="The new encoder of queries. Default: the bundle's own, or that of the documents."
)
@click.option(
    "--old",
    metavar="MODEL",
    help="The encoder so far, a folder, a bundle or a name: queries cut from the documents, which both read, teach a"
    " better map. Default: a map fitted to the documents alone.",
)
@click.option("--check", "--dry-run", "check", is_flag=True, help="Look and tell, and change nothing.")
@click.option("--finish", is_flag=True, help="Let the new vectors be the index, and remove the old ones.")
@click.option("--undo", is_flag=True, help="Remove the new vectors; the old index is as it was.")
@click.option(
    "--data",
    metavar="PATH",
    help="A BEIR folder, whose judged queries say what a search keeps. Default: queries are cut from the documents.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=DEFAULTS["sample"],
    show_default=True,
    metavar="N",
    help="Documents that are encoded to see what the old vectors are worth.",
)
@click.option("--seed", type=click.IntRange(min=0), default=DEFAULTS["seed"], show_default=True, help="Of their draw.")
@click.option("--dim", type=click.IntRange(min=1), metavar="N", help="Dimensions to keep. Default: as before.")
@click.option(
    "--cached/--no-cached",
    default=True,
    show_default=True,
    help="Take vectors that distilling has left in the cache.",
)
@click.option("--threads", type=THREADS, metavar="N", help="Threads to encode with. Default: all.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Encode there: cpu, cuda.")
@remote_code
@reports
def migrate(index: Path, **options: Any) -> Outcome:
    """Move an index to another encoder of documents.

    Tells what the old vectors are worth with it, then encodes all documents anew, from the texts that the index keeps.
    Meanwhile old queries search the old vectors, and new queries both, through a linear map. Stopped in whatever way,
    the same command goes on where it was. --finish ends it, --undo takes it back.
    """
    import emb

    done = emb.migrate(index, **options)
    return Outcome(
        vars(done) | {"folder": index},
        "\n".join([*(_found(done.check) if done.check else []), _next(done, options)]),
    )


def _again(options: Mapping[str, Any]) -> Iterator[object]:
    """What was named of a look, for the migration itself."""
    given = {**options, "to": options["to"] or "MODEL"}
    for name in ("old", "to", "query", "data", "sample", "seed", "dim"):
        if given[name] not in (None, DEFAULTS.get(name)):
            yield from (f"--{name}", given[name])


def _found(check: Check) -> list[str]:
    judges = "judged" if check.judged else "cut from them"
    lines = [f"{check.sample:,} of {check.documents:,} documents by {check.new}, {check.queries:,} queries {judges}:"]
    lines += [_ways(check)] if check.ways else []
    how = "" if check.forecast is None else f"; {check.map} keeps {check.forecast:.1%} of what re-encoding gives"
    return [*lines, "", f"vectors of {check.old} {check.verdict}{how}", *check.renewed, ""]


def _ways(check: Check) -> str:
    """A table; the document that a query was cut from says what it keeps where nobody judged."""
    told = not check.judged and check.ways[0].known  # a migration that an older version began does not know it
    heads = ["vectors", "of its first ten", "nDCG@10", "kept", "cosine", *(["own document"] if told else [])]
    rows = [
        (way.name, f"{way.overlap:.1%}", f"{way.ndcg:.1f}", f"{way.kept:.1%}", f"{way.cosine:.3f}", f"{way.known:.1%}")
        for way in check.ways
    ]
    return table([row[: len(heads)] for row in rows], heads)


def _more(check: Check | None) -> list[str]:
    """What is worth naming before a migration begins."""
    from emb.search.migration.check import USABLE

    if check is None or not check.untried or (check.forecast or 0) >= USABLE:
        return []
    return [f"a map that queries teach may keep more: name the encoder so far ({check.old}, or a bundle) with --old"]


def _next(done: Migrated, options: Mapping[str, Any]) -> str:
    folder = done.folder
    return {
        "checked": "\n".join([*_more(done.check), str(folder), next_step("migrate", folder, *_again(options))]),
        "moved": f"{done.documents - done.left:,} of {done.documents:,} documents are encoded anew,"
        f" {done.truncated:,} texts of this run were longer than the encoder reads\n{folder}\n"
        f"{next_step('migrate', folder, '--finish')}\nor back: {typed('migrate', folder, '--undo')}",
        "finished": f"{done.documents:,} documents\n{folder}",
        "undone": f"the index is as it was: {done.documents:,} documents\n{folder}",
    }[done.state]
