"""What makes an artifact public: `emb card`, `emb push` and `emb doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emb.commands import console
from emb.commands.console import Outcome, reports
from emb.commands.shared import no_verify
from emb.errors import GateFailed
from emb.report.tables import table


@click.command()
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@click.option("--name", metavar="OWNER/NAME", help="What the lines of code call it. Default: the folder's name.")
@click.option(
    "--license",
    metavar="ID",
    help="Licence to state. Default: that of the models it was made from, where it is one and known.",
)
@click.option("--print", "only_print", is_flag=True, help="Print the card and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a README.md that was written or edited by hand.")
@reports
def card(artifact: Path | None, name: str | None, license: str | None, only_print: bool, overwrite: bool) -> Outcome:
    """Write an artifact's model card.

    README.md in the hub's form, every figure in it read from what emb validate (parity.json) and emb evaluate --out
    ARTIFACT/evaluation.json measured. ARTIFACT is an exported folder; by default the newest export of the latest
    run.
    """
    from emb.artifact.runs import newest_export
    from emb.publish.card import card as text_of
    from emb.publish.card import write_card
    from emb.publish.published_artifact import PublishedArtifact

    published = PublishedArtifact.read(artifact or newest_export(), name, license)
    text = text_of(published)
    path = None if only_print else write_card(published, overwrite=overwrite)
    return Outcome({"path": path, "card": text}, text if path is None else f"card: {path}")


@click.command()
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="OWNER/NAME", help="Repository on the hub; made if it does not exist.")
@click.option("--private", is_flag=True, help="Make the repository private, if it has to be made.")
@click.option(
    "--revision", metavar="BRANCH", help="Branch to commit to; made if it does not exist. Default: the main one."
)
@click.option("--message", metavar="TEXT", help="Commit message. Default: emb's version, layers and dims.")
@click.option(
    "--license",
    metavar="ID",
    help="Licence for the card. Default: that of the models it was made from, where it is one and known.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--allow-failed", is_flag=True, help="Send files that failed their gate; the card says so.")
@click.option("--overwrite", is_flag=True, help="Replace a README.md in the repository that was written by hand.")
@no_verify
@reports
def push(artifact: Path | None, no_verify: bool, **options: Any) -> Outcome:
    """Publish an artifact on the model hub.

    Its own files and a fresh card go in one commit; anything else in the folder stays. ARTIFACT is an exported
    folder; by default the newest export of the latest run. HF_TOKEN or `hf auth login` give the token, HF_ENDPOINT
    another hub.
    """
    from emb.artifact.runs import newest_export
    from emb.publish.push import push as send

    return _pushed(send(artifact or newest_export(), verify=not no_verify, **options))


@click.command()
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@reports
def doctor(artifact: Path | None) -> Outcome:
    """Say which programs will load an artifact.

    For each: whether it gets the same vectors, with which line, and what to change if not. ARTIFACT is an exported
    folder; by default the newest export of the latest run. Exit code 1 if emb itself would refuse it.
    """
    from emb.artifact.runs import newest_export
    from emb.publish.doctor import examine

    findings = examine(artifact or newest_export())
    rows = [
        (found.client, "yes" if found.loads else "no", found.how if found.loads else "; ".join(found.problems))
        for found in findings
    ]
    failure = None if findings[0].loads else GateFailed(findings[0].problems[0])
    return Outcome(
        {"clients": [vars(found) | {"loads": found.loads} for found in findings]},
        table(rows, ("client", "loads", "how, or what to change")),
        failure,
    )


def _pushed(done: Any) -> Outcome:
    rows = [(name, f"{size / 1e6:.2f} MB") for name, size in done.files.items()]
    lines = [table(rows, ("file", "size")), ""]
    lines += [f"stays here: {', '.join(done.left)}"] if done.left else []
    lines += [f"removed there: {', '.join(done.removed)}"] if done.removed else []
    lines.append(
        f"published: {done.url}"
        if done.url
        else f"would go to {done.to}: {len(done.files)} files, {sum(done.files.values()) / 1e6:.1f} MB"
    )
    return Outcome(console.plain(done), "\n".join(lines))
