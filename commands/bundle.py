"""The command `emb bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step
from emb.commands.options import THREADS
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
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help=(
        "Documents like those that will be indexed, or a BEIR folder: measure on them who encodes documents fastest and"
        " loses little, DOC in torch, its files or those of --doc-candidate. Default: DOC as it is."
    ),
)
@click.option(
    "--doc-candidate",
    "doc_candidates",
    multiple=True,
    metavar="DIR",
    shell_complete=model_names,
    help="An export of DOC to try as well; repeat for several.",
)
@click.option(
    "--max-texts", type=click.IntRange(min=1), default=300, show_default=True, help="How many documents of --data."
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="With --data: the lowest cosine to DOC's own vector that any document may have.",
)
@click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="With --data: the share of the first ten documents among DOC's vectors that must be found.",
)
@click.option("--threads", type=THREADS, metavar="N", help="Threads to compute with. Default: all.")
@click.option("--device", metavar="NAME", help="With --data: measure there. Default: cuda where there is one, or cpu.")
@click.option("--copy", is_flag=True, help="Put the documents' model inside. Default: write down where it lies.")
@click.option(
    "--router", is_flag=True, help="Write router/ too, a folder that sentence-transformers opens, with both models."
)
@remote_code
@output("bundles/NAME, of the query encoder")
@reports
def bundle(**options: Any) -> Outcome:
    """Join a query encoder and the encoder of its documents.

    The two are checked to share a space, by what their folders say and by trying. The folder opens as one encoder,
    whose queries go to the small model and whose documents to the large one. With --data, the large one is the fastest
    way of running it that loses little.
    """
    import emb
    from emb.artifact.bundle import Bundle
    from emb.search.bundling.table import choice_text

    folder = emb.bundle(**options)
    found = Bundle.load(folder)
    rows = [(side, each.name, each.file or f"torch, {each.dtype}", str(each.dim)) for side, each in _sides(found)]
    chosen = f"{choice_text(found.choice)}\n\n" if found.choice else ""
    where = ("--device", found.choice.device) if found.choice and found.choice.device != "cpu" else ()
    return Outcome(
        {"folder": folder, "bundle": found},
        f"{chosen}{table(rows, ('side', 'encoder', 'file', 'dims'))}\n\nshared: {found.dim} dims, {found.similarity};"
        f" of {found.space.texts} texts {found.space.found:.0%} find themselves\n\n{folder}\n"
        + next_step(
            "index", *_documents(options["query"]), "--doc", folder, *where, "--out", f"{Path(folder).name}.index"
        ),
    )


def _documents(query: str | None) -> list[str]:
    """The documents that a query encoder was made for, if its lineage names any that are still there."""
    from emb.artifact.manifest import Manifest, is_artifact

    folder = Path(query or "")
    recipe = (Manifest.load(folder).lineage.recipe or {}) if is_artifact(folder) else {}
    named = [str(each) for each in recipe.get("data", {}).get("documents", ())]
    return named if named and all(Path(each).exists() for each in named) else ["DOCS"]


def _sides(found: Any) -> list[tuple[str, Any]]:
    return [("queries", found.query), ("documents", found.document)]
