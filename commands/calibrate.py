"""The command `emb calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.options import THREADS
from emb.commands.shared import model_names, remote_code
from emb.report.tables import table

if TYPE_CHECKING:
    from emb.search.calibration.apply import Calibration


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="PATH",
    help="A BEIR folder, whose judgements are used; or documents, from which queries are cut.",
)
@click.option(
    "--doc",
    metavar="NAME|PATH",
    shell_complete=model_names,
    help="The encoder of documents, where MODEL is no bundle. Default: the teacher that it names.",
)
@click.option("--split", metavar="NAME", help="Judgements of a BEIR folder, qrels/NAME.tsv. Default: test.")
@click.option(
    "--max-queries", type=click.IntRange(min=1), default=500, show_default=True, help="How many are cut from documents."
)
@click.option(
    "--max-documents",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="How many are read where queries are cut from them.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the queries drawn.")
@click.option("--threads", type=THREADS, metavar="N", help="Threads to compute with. Default: all.")
@remote_code
@reports
def calibrate(**options: Any) -> Outcome:
    """Turn similarities into a relevance from 0 to 1.

    MODEL is a bundle or the folder of a query encoder; calibration.json is written into it. Without judgements, the
    documents' model says what is relevant. All figures are of queries that the map judging them was not fitted to.
    """
    import emb
    from emb.search.calibration.apply import FILE

    found = emb.calibrate(**options)
    path = options["model"] / FILE
    return Outcome({"path": path, "calibration": found}, f"{_candidates(found)}\n\n{_thresholds(found)}\n\n{path}")


def _candidates(found: Calibration) -> str:
    rows = [
        (
            f"{name}{' (kept)' if name == found.kind else ''}",
            each.average_precision,
            *each.precision.values(),
            each.error,
        )
        for name, each in found.figures.items()
    ]
    recalls = next(iter(found.figures.values())).precision
    return table(rows, ("map", "average precision", *(f"P at R={each}" for each in recalls), "calibration error"))


def _thresholds(found: Calibration) -> str:
    rows = [(each.relevance, each.precision, each.recall, each.hits) for each in found.thresholds]
    judges = "people" if found.judged else found.document.name
    return f"judged by {judges}:\n{table(rows, ('relevance from', 'precision', 'recall', 'hits a query'))}"
