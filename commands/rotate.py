"""The command `emb rotate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step
from emb.commands.shared import model_names, remote_code
from emb.report.tables import table


@click.command()
@click.argument("teacher", shell_complete=model_names)
@click.option(
    "--for",
    "documents",
    multiple=True,
    metavar="PATH",
    help="Documents that will be searched: the rotation is fitted to the teacher's vectors of them. Repeat for more.",
)
@click.option("--data", multiple=True, metavar="PATH", help="Texts to fit it to where the documents are not known.")
@click.option("--field", metavar="NAME", help="Column or key that holds the text.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the rotated model."
)
@click.option(
    "--move",
    "moved",
    multiple=True,
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="IN OUT.npy",
    help="An index of the plain teacher's vectors (.npy or Parquet), rotated to OUT.npy. Repeat for several.",
)
@click.option("--overwrite", is_flag=True, help="Replace what --out holds.")
@remote_code
@reports
def rotate(teacher: str, documents: Sequence[str], data: Sequence[str], field: str | None, **options: Any) -> Outcome:
    """Turn a teacher's vectors so that their first dims say most.

    Every cosine stays as it is at full dim, and a cut to fewer dims loses less. The rotated model is a folder that any
    client loads: distil from it, and encode documents with it. What was cached or indexed before is rotated, not
    encoded again.
    """
    import emb

    found = emb.rotate(teacher, documents=list(documents), data=list(data), field=field, **options)
    rows = [(dim, share) for dim, share in found.shares.items()]
    return Outcome(
        vars(found),
        f"{table(rows, ('dims', 'share of squared length'))}\n\n{found.folder}\n"
        + next_step(
            *("distill", "--teacher", found.folder),
            *(word for path in documents for word in ("--for", path)),
            *(("--field", field) if field else ()),
        ),
    )
