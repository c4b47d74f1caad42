"""The command `emb sync`."""

from __future__ import annotations

from pathlib import Path

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import QUESTION, next_step

FINDS = ("hnsw", "bits", "exact")


@click.command()
@click.argument("index", type=click.Path(path_type=Path), metavar="INDEX")
@click.argument("target", metavar="TARGET")
@click.option(
    "--find",
    type=click.Choice(FINDS),
    help="How the nearest are found there: by a graph, by bits that choose what whole vectors put in order (PostgreSQL"
    " alone), or by looking at every vector. Default: hnsw. It stays as the table was begun.",
)
@click.option("--overwrite", is_flag=True, help="Remove what lies under that name first, whatever it is.")
@reports
def sync(index: Path, target: str, find: str | None, overwrite: bool) -> Outcome:
    """Copy an index into Milvus or PostgreSQL, or update the copy.

    TARGET is milvus:FILE.db#NAME (the engine runs inside this process), milvus://HOST:19530#NAME (a server or a
    cluster) or postgresql://USER@HOST/DATABASE#NAME. What is new or has changed in INDEX is written, what it has no
    more is removed. Stopped in whatever way, the same command goes on where it was. `emb search --index TARGET`
    searches there.
    """
    import emb

    done = emb.sync(index, target, find=find, overwrite=overwrite)
    text = (
        f"{done.documents:,} documents in {done.passages:,} passages: {done.written:,} written,"
        f" {done.unchanged:,} unchanged, {done.removed:,} removed\n\n"
        f"{done.target}\n{next_step('search', QUESTION, '--index', done.target, '--query', 'MODEL')}"
    )
    return Outcome(vars(done), text)
