"""The command `emb`: parse, call one library function, print. Nothing heavy is imported here."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from emb.commands import console
from emb.commands.adapt_vocab import adapt_vocab
from emb.commands.bundle import bundle
from emb.commands.calibrate import calibrate
from emb.commands.codec import codec
from emb.commands.console import Outcome, reports
from emb.commands.demo import demo
from emb.commands.distill import distill
from emb.commands.encode import encode
from emb.commands.evaluate import evaluate
from emb.commands.export import export
from emb.commands.index import index
from emb.commands.migrate import migrate
from emb.commands.publish import card, doctor, push
from emb.commands.rotate import rotate
from emb.commands.search import search
from emb.commands.sections import Sections
from emb.commands.serve import serve
from emb.commands.sign import sign
from emb.commands.sync import sync
from emb.commands.validate import validate
from emb.commands.web import web
from emb.report.tables import table

SHELLS = ("bash", "zsh", "fish")
SECTIONS = {
    "Begin": ("demo", "models", "completion"),
    "Make an encoder": ("distill", "export", "validate", "adapt-vocab", "rotate"),
    "Search documents": ("bundle", "index", "search", "serve", "web", "calibrate", "migrate", "sync"),
    "Write and score vectors": ("encode", "codec", "evaluate"),
    "Publish": ("card", "doctor", "push", "sign"),
}

_EXIT_CODES = (
    "Exit codes: 0 done, 1 a quality gate failed, 2 bad usage or input, 70 an unexpected error (its traceback is in a"
    " log file), 130 stopped with Ctrl-C, 143 with SIGTERM."
)


@click.group(
    cls=Sections,
    sections=SECTIONS,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
)
@click.version_option(package_name="emb-distill", prog_name="emb")
# `console.run` looks for it.
@click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of every error; EMB_DEBUG=1 does too."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Distil a text-embedding model into small encoders in its own vector space, and search with them.

    \b
    emb distill --teacher all-MiniLM-L6-v2 --for documents.jsonl --layers 0
    emb export --layers 0 --dim 128 --int8
    emb validate
    emb bundle --query runs/all-minilm-l6-v2/exports/0x128 --out bundles/mine
    emb index documents.jsonl --doc bundles/mine --out docs.index
    emb search "how do I open a file?" --index docs.index --query bundles/mine
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.option("--language", metavar="NAME", help="Only models for this language, e.g. en or multilingual.")
@reports
def models(language: str | None) -> Outcome:
    """List the models that go by a short name."""
    from emb.teachers.registry import teachers

    rows = [teacher for teacher in teachers().values() if language in (None, teacher.languages)]
    header = ("name", "parameters", "layers", "dim", "max tokens", "languages", "licence", "student")
    cells = [
        (
            t.name,
            f"{t.parameters} M",
            t.layers,
            t.dim,
            t.max_length,
            t.languages,
            t.licence,
            f"{t.student_layers} layers of {t.student or 'itself'}",
        )
        for t in rows
    ]
    return Outcome({"models": rows}, table(cells, header))


@cli.command()
@click.argument("shell", type=click.Choice(SHELLS))
@reports
def completion(shell: str) -> Outcome:
    """Print the script for completion in a shell.

    To have it in this one: eval "$(emb completion bash)"
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion for {shell}")
    text = script(cli, {}, "emb", "_EMB_COMPLETE").source()
    return Outcome({"shell": shell, "script": text}, text)


for _command in (
    distill,
    rotate,
    adapt_vocab,
    export,
    validate,
    bundle,
    sign,
    index,
    search,
    sync,
    calibrate,
    migrate,
    serve,
    web,
    encode,
    evaluate,
    codec,
    card,
    push,
    doctor,
    demo,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(console.run(cli, sys.argv[1:]))


if __name__ == "__main__":
    main()
