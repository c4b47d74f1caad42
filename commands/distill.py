"""The command `emb distill`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step
from emb.commands.options import duration, setting
from emb.commands.shared import model_names, output, remote_code
from emb.report.tables import table

if TYPE_CHECKING:
    from emb.artifact.manifest import PairScores
    from emb.distill import DistillResult


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
@click.option(
    "--parallel",
    multiple=True,
    metavar="FILE",
    help=(
        "Texts and their translations, for a student of more languages than the teacher: a .tsv of two columns, or"
        " jsonl, csv or Parquet with text and translation (also .gz); beside --data or alone, repeat for several."
    ),
)
@click.option(
    "--for",
    "documents",
    multiple=True,
    metavar="PATH",
    help=(
        "Documents that will be searched: makes a small encoder for queries to them. A file"
        " or folder as for --data, or a BEIR folder, of which the corpus alone is read; repeat for several."
    ),
)
@click.option(
    "--for-queries",
    is_flag=True,
    help="Makes a small encoder for queries, cut from the teacher, whatever will be searched.",
)
@click.option(
    "--rotate/--no-rotate",
    default=None,
    help=(
        "With --for: turn the teacher's vectors so that few dims suffice; RUN/teacher is then the encoder of documents."
        " Default: --rotate, unless the teacher was trained to be cut."
    ),
)
@click.option("--field", metavar="NAME", help="Column or key that holds the text. Default: text.")
@click.option("--kind-field", metavar="NAME", help="Column or key that says query or document. Default: kind.")
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
    type=click.IntRange(min=0),
    metavar="N",
    help="Layers of the student to keep; without --student, of the teacher. 0: a static encoder, a row per token.",
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
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only forecast what each size will keep, and how long the run will take here.",
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted run at --out, or the latest one.")
@remote_code
@output("runs/TEACHER, with a number if that is taken")
@reports
def distill(
    settings: Sequence[tuple[str, Any]],
    data: Sequence[str],
    parallel: Sequence[str],
    documents: Sequence[str],
    **options: Any,
) -> Outcome:
    """Train a small student to give the vectors of a teacher.

    With --for it encodes queries to those documents, which the teacher encodes; else queries and documents. No labels
    are needed. Interrupted, the run goes on with --resume.

    \b
    emb distill --teacher all-MiniLM-L6-v2 --for documents.jsonl --dry-run
    emb distill --teacher all-MiniLM-L6-v2 --for documents.jsonl --layers 0
    emb distill --teacher all-mpnet-base-v2 --data texts.jsonl
    """
    import emb

    result = emb.distill(data=data, parallel=parallel, documents=documents, overrides=dict(settings), **options)
    if options["dry_run"] and result.forecast:
        return Outcome({"scores": result.scores, "seconds": result.forecast.seconds}, _expected(result))
    found = {"run": result.run, "student": result.student, "teacher": result.teacher, "scores": result.scores}
    return Outcome(found, _distilled(result))


# Of the scores of a pair: the name in the header, and how a number is written.
_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "retention": ("kept in your documents", "{:.1%}".format),
    "forecast": ("expected", "{:.1%}".format),
    "cosine": ("cosine to teacher", "{:.4f}".format),
    "overlap": ("overlap@10", "{:.4f}".format),
    "parameters": ("MB in int8", lambda count: f"{count / 1e6:.1f}"),
    "milliseconds": ("ms a query", "{:.2f}".format),
}


def _distilled(result: DistillResult) -> str:
    pair = ("--layers", result.advised.layers, "--dim", result.advised.dim) if result.advised else ()
    documents = f"documents are encoded by {result.teacher}\n" if result.teacher else ""
    return f"{_scores(result)}\n\nrun: {result.run}\n{documents}{next_step('export', result.run, *pair, '--int8')}"


def _expected(result: DistillResult) -> str:
    times = result.forecast.times() if result.forecast else ""
    layers = ", with --layers 0" if result.advised and result.advised.layers == 0 else ""
    return (
        f"expected, from a short training on a sample:\n{_scores(result)}\n\ntime here, with nothing cached: {times}\n"
        f"next: the same command without --dry-run{layers}"
    )


def _scores(result: DistillResult) -> str:
    shown = [name for name in _COLUMNS if any(getattr(each, name) is not None for each in result.scores)]
    rows = [[each.layers, each.dim, *(_cell(each, name) for name in shown)] for each in result.scores]
    lines = table(rows, ["layers", "dim", *(_COLUMNS[name][0] for name in shown)])
    return f"{lines}\nMB: a byte a number; ms: in torch on this machine, an export is faster"


def _cell(scores: PairScores, name: str) -> str | None:
    value = getattr(scores, name)
    return None if value is None else _COLUMNS[name][1](value)
