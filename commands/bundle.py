"""The command `emb bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.shared import model_names, output, remote_code
from emb.report.tables import table


@click.command()
@click.option(
    "--query",
    required=True,
    metavar="NAME|PATH",
    shell_complete=model_names,
    help="The encoder of queries: an export, a run, a student or any model folder.",
)
@click.option(
    "--doc",
    metavar="NAME|PATH",
    shell_complete=model_names,
    help="The encoder of documents. Default: the teacher that the query encoder names.",
)
@click.option("--query-file", metavar="FILE", help="Of an export the file to use. Default: the smallest that passed.")
@click.option("--document-file", metavar="FILE", help="The same of the documents' encoder.")
@click.option("--copy", is_flag=True, help="Put the documents' model inside. Default: write down where it lies.")
@click.option(
    "--router", is_flag=True, help="Write router/ too, a folder that sentence-transformers opens, with both models."
)
@remote_code
@output
@reports
def bundle(**options: Any) -> Outcome:
    """Join a query encoder and the encoder of its documents.

    The two are checked to share a space, by what their folders say and by trying. The folder opens as one encoder,
    whose queries go to the small model and whose documents to the large one.
    """
    import emb
    from emb.artifact.bundle import Bundle

    folder = emb.bundle(**options)
    found = Bundle.load(folder)
    rows = [(side, each.name, each.file or "torch", str(each.dim)) for side, each in _sides(found)]
    return Outcome(
        {"folder": folder, "bundle": found},
        f"{table(rows, ('side', 'encoder', 'file', 'dims'))}\n\nshared: {found.dim} dims, {found.similarity}; of"
        f" {found.space.texts} texts {found.space.found:.0%} find themselves\n\n{folder}\nnext: emb index DOCS --doc"
        f" {folder} --out {Path(folder).name}-index",
    )


def _sides(found: Any) -> list[tuple[str, Any]]:
    return [("queries", found.query), ("documents", found.document)]
