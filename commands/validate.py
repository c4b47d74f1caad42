"""The command `emb validate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from emb.commands import console
from emb.commands.console import Outcome, reports
from emb.commands.shared import model_names, no_verify, remote_code
from emb.errors import GateFailed


@click.command()
@click.argument("artifact", required=False)
@click.option(
    "--against",
    metavar="MODEL",
    shell_complete=model_names,
    help="Model to compare with as well. Default: the teacher, where it can be found.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help="Texts to compare on; the kinds `emb distill --data` takes.",
)
@click.option("--max-texts", type=click.IntRange(min=1), default=500, show_default=True, help="How many of them.")
@click.option("--min-cosine", type=click.FloatRange(0, 1), help="Gate for int8 in place of the artifact's own.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of ONNX Runtime. Default: all.")
@no_verify
@remote_code
@reports
def validate(
    artifact: str | None, data: Sequence[str], min_cosine: float | None, no_verify: bool, **options: Any
) -> Outcome:
    """Prove an artifact against its model.

    The very files that ship are compared with the model they were made from. ARTIFACT is an exported folder; by
    default the newest export of the latest run. Writes parity.json and report.html into it. Exit code 1 if a gate
    fails.
    """
    from emb.validate.proof import validate as prove

    report = prove(artifact, data=list(data), min_cosine=min_cosine, verify=not no_verify, **options)
    failure = (
        None
        if report.passed
        else GateFailed(
            f"{report.artifact}: a gate failed",
            "report.html shows which texts moved; export again with another dim, or train longer",
        )
    )
    return Outcome(console.plain(report), str(report), failure)
