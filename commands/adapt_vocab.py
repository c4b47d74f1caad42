"""The command `emb adapt-vocab`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step
from emb.commands.options import setting
from emb.commands.shared import model_names, output, remote_code
from emb.report.tables import table

if TYPE_CHECKING:
    from emb.vocabulary.adaptation import AdaptResult


@click.command("adapt-vocab")
@click.argument("model", shell_complete=model_names)
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help="Texts like those that the model will read: files, folders or a datasets hub id; repeat for several.",
)
@click.option(
    "--for",
    "documents",
    multiple=True,
    metavar="PATH",
    help="Documents that will be searched, read whole with their titles; of a BEIR folder its corpus. Repeat for more.",
)
@click.option("--profile", is_flag=True, help="Only measure the vocabulary on the texts; with --out, write a report.")
@click.option(
    "--mode",
    type=click.Choice(["trim", "extend", "both"]),
    default="trim",
    show_default=True,
    help="Take tokens out that the texts do not need, add ones that they do, or both in this order.",
)
@click.option(
    "--keep-coverage",
    type=float,
    metavar="SHARE",
    help="Keep the tokens that make up this share of all occurrences, e.g. 0.9999. Default: all that occur.",
)
@click.option("--rows", type=click.IntRange(min=1), metavar="N", help="Keep exactly N tokens instead.")
@click.option(
    "--choose",
    type=click.Choice(["auto", "influence", "counts"]),
    default="auto",
    show_default=True,
    help="Which N: the most used, or by influence, where the distance of a token's row from those of its pieces counts"
    " too; auto takes the better on held-out texts.",
)
@click.option(
    "--keep-scripts",
    metavar="NAMES",
    help="Keep the tokens of these scripts besides, separated by commas, e.g. Latin,Cyrillic.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the tokens of these texts besides, one a line.",
)
@click.option("--add", type=click.IntRange(min=1), metavar="N", help="How many tokens to add.")
@click.option(
    "--init",
    type=click.Choice(["auto", "mean", "first", "merge", "align", "omp", "random"]),
    default="auto",
    show_default=True,
    help="How rows of new tokens begin; mean is zip-tie, auto takes the best on held-out texts.",
)
@click.option(
    "--teacher",
    default="self",
    show_default=True,
    metavar="self|NAME|PATH",
    help="Whose vectors new rows are trained towards: the model's own without them, or another model's.",
)
@click.option(
    "--lora", is_flag=True, help="At the end, train an adapter of all layers and merge it where held-out texts gain."
)
@click.option("--qlora", is_flag=True, help="The same on a base in 4 bits, where memory is short.")
@click.option(
    "--min-cosine",
    type=float,
    default=0.85,
    show_default=True,
    metavar="COSINE",
    help="Fail where an extension leaves held-out texts less near to what they were, in the mean.",
)
@click.option(
    "--propagate-to",
    metavar="NAME|PATH",
    help="Give a model that was tuned from this one the same vocabulary, without training; written beside --out.",
)
@click.option("--field", default="text", show_default=True, metavar="NAME", help="Column or key that holds the text.")
@click.option(
    "--kind-field", default="kind", show_default=True, metavar="NAME", help="Column or key that says query or document."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Read so many texts of each source at most.")
@click.option(
    "--set",
    "settings",
    type=setting,
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a value of the training of rows, or of the adapter: --set epochs=5, --set language.lr=1e-4.",
)
@remote_code
@output("adapted/NAME")
@reports
def adapt_vocab(
    model: str,
    data: Sequence[str],
    documents: Sequence[str],
    keep_scripts: str | None,
    settings: Sequence[tuple[str, Any]],
    **options: Any,
) -> Outcome:
    """Fit the token vocabulary of a model to texts.

    Writes a folder that distill, export, evaluate and any sentence-transformers client open like another, with
    id_map.json, vocab_report.json and vocab_report.html. Texts of kept tokens encode as before and give the same
    vectors; this is proven before anything is written.
    """
    import emb

    scripts = [name.strip() for name in keep_scripts.split(",")] if keep_scripts else []
    found = emb.adapt_vocab(
        model, data=list(data), documents=list(documents), keep_scripts=scripts, overrides=dict(settings), **options
    )
    if options["profile"]:
        return Outcome(
            {"profile": found.profile, "folder": found.folder}, _profiled(_typed(model, data, documents), found)
        )
    content = {"folder": found.folder, **found.report}
    text = _adapted(found)
    if found.sibling:
        content["sibling"] = {"folder": found.sibling.folder, **found.sibling.report}
        text += f"\n\n{_adapted(found.sibling)}"
    return Outcome(content, text)


def _typed(model: str, data: Sequence[str], documents: Sequence[str]) -> list[str]:
    texts = [*(("--data", path) for path in data), *(("--for", path) for path in documents)]
    return ["adapt-vocab", model, *(word for pair in texts for word in pair)]


def _profiled(typed: Sequence[str], found: AdaptResult) -> str:
    from emb.vocabulary.page import PARTS, SETTINGS, part_rows, settings_rows

    known = found.profile
    parts = part_rows([*known.sources, *(each for each in known.scripts if len(known.scripts) > 1)])
    mode = ("--mode", "both", "--add", "2000") if known.shattered else ()
    return (
        f"{known.kind}, {known.tokens:,} tokens; the table is {known.share:.0%} of {known.parameters / 1e6:.1f} M"
        f" parameters; the texts use {known.used:,} of them\n\n{table(parts, PARTS)}\n\n"
        f"{table(settings_rows(known), SETTINGS)}\n\n"
        + (f"report: {found.folder}/vocab_report.html\n" if found.folder else "")
        + next_step(*typed, *mode, "--keep-coverage", f"{known.suggested:g}")
    )


def _adapted(found: AdaptResult) -> str:
    tokens, parameters = found.report["tokens"], found.report["parameters"]
    rows = [
        ("tokens", f"{tokens['before']:,}", f"{tokens['kept'] + tokens['added']:,}"),
        ("parameters", f"{parameters['before'] / 1e6:.1f} M", f"{parameters['after'] / 1e6:.1f} M"),
    ]
    return f"{table(rows, ('', 'before', 'after'))}\n\n{found.folder}\n{next_step('export', found.folder, '--int8')}"
