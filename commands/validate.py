"""The command `emb validate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emb.artifact.bundle import is_bundle
from emb.artifact.manifest import what_else
from emb.commands import console
from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step
from emb.commands.options import THREADS
from emb.commands.shared import model_names, no_verify, remote_code
from emb.commands.shared import trusted_key as with_trusted_key
from emb.errors import GateFailed, UsageError
from emb.report.tables import table

if TYPE_CHECKING:
    from emb.search.bundling.agreement import Search


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
@click.option("--threads", type=THREADS, metavar="N", help="Threads of ONNX Runtime. Default: all.")
@with_trusted_key
@no_verify
@remote_code
@reports
def validate(
    artifact: str | None,
    data: Sequence[str],
    min_cosine: float | None,
    trusted_key: Path | None,
    no_verify: bool,
    **options: Any,
) -> Outcome:
    """Prove an artifact against its model.

    The very files that ship are compared with the model they were made from. ARTIFACT is an exported folder; by
    default the newest export of the latest run. Writes parity.json and report.html into it. Exit code 1 if a gate
    fails. Of a bundle it is shown how far its search agrees with one by the documents' model alone: --data names a
    BEIR folder, or documents from which queries are cut. Of an index every byte is compared with its checksum, and
    nothing is written; exit code 2 if one has changed. With --trusted-key its signature is looked at first, and
    without --data that is all.
    """
    if trusted_key is not None:
        _require_signed(artifact, trusted_key, not no_verify)
        if not data:
            return Outcome({"artifact": artifact, "signed": True}, f"{artifact}: every file is as it was signed")
    if artifact is not None and what_else(Path(artifact)) == "an index":
        return _index(Path(artifact), data, min_cosine, **options)
    if artifact is not None and is_bundle(Path(artifact)):
        return _bundle(artifact, data, not no_verify, min_cosine, **options)
    from emb.validate import validate as prove

    report = prove(artifact, data=list(data), min_cosine=min_cosine, verify=not no_verify, **options)
    failure = (
        None
        if report.passed
        else GateFailed(
            f"{report.artifact}: a gate failed",
            "report.html shows which texts moved; export again with another dim, or train longer",
        )
    )
    return Outcome(
        console.plain(report), str(report) if failure else f"{report}\n{_after(Path(report.artifact))}", failure
    )


def _after(folder: Path) -> str:
    """What comes next for files that passed: a student joins its teacher, any other encoder reads documents itself."""
    from emb.artifact.manifest import Manifest
    from emb.artifact.runs import run_of

    name = (run_of(folder) or folder).name
    if Manifest.load(folder).lineage.teacher is None:
        return next_step("index", "DOCS", "--doc", folder, "--out", f"{name}.index")
    return next_step("bundle", "--query", folder, "--out", Path("bundles", name))


def _require_signed(artifact: str | None, trusted_key: Path, verify: bool) -> None:
    from emb.artifact.signature import require_signed

    if artifact is None or not verify:
        raise UsageError("--trusted-key: looks at one artifact as it is", "name its folder, without --no-verify")
    require_signed(Path(artifact), trusted_key)


def _index(folder: Path, data: Sequence[str], min_cosine: float | None, against: str | None, **_: Any) -> Outcome:
    from emb.search.index.whole import prove

    if data or against or min_cosine is not None:
        raise UsageError(
            f"{folder}: an index is held against its own checksums", "leave out --against, --data and --min-cosine"
        )
    found = prove(folder)
    return Outcome(
        {"index": str(folder), **vars(found)},
        f"{folder}: every byte is as it was written: {found.documents:,} documents, {found.passages:,} vectors in"
        f" {found.files:,} files ({found.bytes / 1e6:,.1f} MB)",
    )


def _bundle(
    folder: str, data: Sequence[str], verify: bool, min_cosine: float | None, against: str | None, **options: Any
) -> Outcome:
    from emb.artifact.signature import is_signed
    from emb.search.bundling.agreement import validate_bundle
    from emb.search.bundling.table import choice_text

    if against or min_cosine is not None:
        raise UsageError(
            f"{folder}: a bundle is held against its own documents' model", "leave out --against and --min-cosine"
        )
    found = validate_bundle(folder, data, verify=verify, **options)
    columns = ("queries by", "documents by", "dims", "of its first ten", *(("nDCG@10",) if found.judged else ()))
    times = "; ".join(f"{name} {each:.1f} ms a query" for name, each in found.milliseconds.items())
    asked = f"{found.texts:,} queries{'' if found.judged else ', cut from the documents'}"
    chosen = f"\n\nhow it was chosen who encodes documents:\n{choice_text(found.choice)}" if found.choice else ""
    written = "" if is_signed(Path(folder)) else f"\n\n{folder}/agreement.json"
    return Outcome(
        console.plain(found),
        f"{found.data}: {asked}, {found.documents:,} documents\n\n"
        f"{table([_search(each) for each in found.searches], columns)}\n\n"
        f"{times}\nan index takes a second for {found.documents_per_second:,.1f} documents{chosen}{written}",
    )


def _search(found: Search) -> tuple[str, ...]:
    judged = () if found.ndcg is None else (f"{found.ndcg:.1f}",)
    return (found.queries, found.documents, str(found.dim), f"{found.overlap:.0%}", *judged)
