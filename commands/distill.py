"""The command `emb distill`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from emb.artifact.manifest import PairScores
from emb.commands.console import Outcome, reports
from emb.commands.options import duration, setting
from emb.commands.shared import model_names, output, remote_code
from emb.report.tables import table


@click.command()
@click.option(
    "--teacher",
    metavar="NAME|PATH",
    shell_complete=model_names,
    help="Model whose vector space the student learns: a name from `emb models`, a folder, or a hub id.",
)
@click.option(
    "--teacher-vectors",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=(
        "In place of a teacher: a .npy file with a vector for each text of --data, in order, or a Parquet file with"
        " columns text and vector (--set capture.column=NAME), which then is the data too."
    ),
)
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help=(
        "Texts: txt, md, jsonl, csv or Parquet (also .gz), a folder, or a datasets hub id; repeat for several. "
        "Default: the Python documentation and docstrings of this machine."
    ),
)
@click.option("--field", metavar="NAME", help="Column or key that holds the text.")
@click.option("--kind-field", metavar="NAME", help="Column or key that says query or document.")
@click.option(
    "--student",
    metavar="NAME|PATH|teacher|fresh:LAYERSxHIDDEN",
    shell_complete=model_names,
    help=(
        "What the student starts from: an encoder, the teacher itself, or fresh weights. Default: the registry's "
        "advice for this teacher, or the teacher."
    ),
)
@click.option(
    "--layers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Layers of it to keep; without --student, layers of the teacher.",
)
@click.option("--recipe", metavar="NAME|FILE", help="Recipe to follow: a shipped one by name, or a YAML file.")
@click.option(
    "--set",
    "settings",
    type=setting,
    metavar="KEY=VALUE",
    multiple=True,
    help="Override one field of the recipe, e.g. --set training.lr=1e-4; repeat for several.",
)
@click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Stop after N steps of training.")
@click.option("--max-time", type=duration, metavar="TIME", help="Stop training after a time, e.g. 45m or 1h30m.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run at --out, or the latest one.")
@remote_code
@output
@reports
def distill(settings: Sequence[tuple[str, Any]], data: Sequence[str], **options: Any) -> Outcome:
    """Train a small student to give the vectors of a teacher."""
    import emb

    result = emb.distill(data=list(data), overrides=dict(settings), **options)
    return Outcome(
        {"run": result.run, "student": result.student, "scores": result.scores}, _distilled(result.run, result.scores)
    )


def _distilled(run: Path, scores: Sequence[PairScores]) -> str:
    rows = [(each.layers, each.dim, each.cosine, each.overlap) for each in scores]
    best = f"--layers {scores[0].layers} --dim {scores[0].dim} " if scores else ""
    return (
        f"{table(rows, ('layers', 'dim', 'cosine to teacher', 'overlap@10'))}\n\nrun: {run}\nnext: emb export {run}"
        f" {best}--int8"
    )
