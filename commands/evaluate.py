"""The command `emb evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.options import THREADS, layer_numbers, numbers
from emb.commands.shared import Lists, flat, model_names, no_verify, remote_code
from emb.report.tables import table


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL…")
@click.option(
    "--teacher",
    metavar="NAME|PATH",
    shell_complete=model_names,
    help="Scored too, at each dim; its documents are what student queries are tried on as well.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help=(
        "A BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), a table of sentence1, sentence2, score, labelled"
        " texts (a folder of train and test, each with text and label), or a folder of those; repeat for several."
    ),
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME[=PATH]",
    help="A task of mteb, with the data at PATH or, without it, from the hub; repeat for several.",
)
@click.option(
    "--split", metavar="NAME", help="Grades of BEIR folders, qrels/NAME.tsv, and labelled texts. Default: test."
)
@click.option(
    "--side",
    type=click.Choice(["symmetric", "asymmetric"]),
    help="Only a model on both sides, or only student queries on the teacher's documents. Default: both.",
)
@click.option(
    "--dims",
    "--dim",
    "dims",
    type=numbers,
    metavar="N[,N…]",
    multiple=True,
    help="Dims to cut the vectors to. Default: common sizes up to the model's own.",
)
@click.option(
    "--layers", type=layer_numbers, metavar="N[,N…]", multiple=True, help="Exits of a student to score. Default: all."
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "auto"]),
    default="fp32",
    show_default=True,
    help="Precision that the teacher computes in.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "fp16", "int8", "int4"]),
    multiple=True,
    help="Only such files of exported artifacts; repeat for several. Default: all.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep vectors there, so that a second call does not encode again.",
)
@click.option("--threads", type=THREADS, metavar="N", help="Threads of ONNX Runtime. Default: all.")
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="DIR",
    help=(
        "Also score retrieval with documents stored by this codec of `emb codec`, at its dim, queries as floats; repeat"
        " for several."
    ),
)
@click.option(
    "--rescore",
    metavar="float|lvq8|int8|DIR",
    help="Put the codes' first candidates in order by floats, by lvq8, by int8, or by another codec.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="How many candidates are rescored.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the scores to a .json file, or the table to an .md file.",
)
@click.option(
    "--mteb-json",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write each score there as mteb does, for tools that read its results.",
)
@click.option(
    "--language",
    "languages",
    multiple=True,
    metavar="CODE",
    help="For --mteb-json: a language of the sets in --data, such as eng-Latn; repeat for several.",
)
@no_verify
@remote_code
@click.option("--markdown", is_flag=True, help="Print the table in Markdown.")
@reports
def evaluate(
    models: Sequence[str], dims: Lists, layers: Lists, out: Path | None, markdown: bool, no_verify: bool, **options: Any
) -> Outcome:
    """Score models on retrieval, similarity and classification.

    Students are scored on their own and, with --teacher, with their queries on the teacher's documents; the
    teacher with its own vectors cut to each dim. MODEL is a run, a student, an exported artifact (each of its ONNX
    files is scored), any model by name or folder, or a bundle: its queries on the documents of its own teacher.
    """
    from emb.evaluate.evaluate import evaluate as score

    if not options["data"] and not options["tasks"]:
        raise click.UsageError("give --data PATH or --task NAME")
    found = score(models, dims=flat(dims), layers=flat(layers), verify=not no_verify, **options)
    if out:
        found.save(out)
    return Outcome(found.as_dict(), found.markdown() if markdown else table(found.rows(), found.header()))
