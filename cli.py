"""The command `emb`: parse, call one library function, print. Nothing heavy is imported here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from emb import console
from emb.codec_command import codec
from emb.console import Outcome, reports
from emb.errors import GateFailed
from emb.options import duration, numbers, setting

Command = TypeVar("Command", bound=Callable[..., Any])
Lists = Sequence[tuple[int, ...]]
SHELLS = ("bash", "zsh", "fish")
TARGETS = ("cpu-latency", "cpu-throughput", "browser", "smallest", "best")


def _model_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from emb.registry import teachers

    names = [name for name in teachers() if name.lower().startswith(incomplete.lower())]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def _output(command: Command) -> Command:
    command = click.option("--overwrite", is_flag=True, help="Replace what --out holds.")(command)
    return click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Exit codes: 0 done, 1 a quality gate failed, 2 bad usage or input.")
@click.version_option(package_name="emb-distill", prog_name="emb")
def cli() -> None:
    """Distil a text-embedding model into small encoders in its own vector space; cut, quantise and prove them.

    \b
    emb distill --teacher qwen3-embedding-0.6b
    emb export --layers 4 --dim 128 --int8
    emb validate
    """


@cli.command()
@click.option(
    "--teacher", metavar="NAME|PATH", shell_complete=_model_names,
    help="Model whose vector space the student learns: a name from `emb models`, a folder, or a hub id.",
)
@click.option(
    "--data", multiple=True, metavar="PATH",
    help="Texts: txt, md, jsonl, csv or Parquet (also .gz), a folder, or a datasets hub id; repeat for several. "
    "Default: the Python documentation and docstrings of this machine.",
)
@click.option("--field", metavar="NAME", help="Column or key that holds the text.")
@click.option("--kind-field", metavar="NAME", help="Column or key that says query or document.")
@click.option(
    "--student", metavar="NAME|PATH|teacher|fresh:LAYERSxHIDDEN", shell_complete=_model_names,
    help="What the student starts from: an encoder, the teacher itself, or fresh weights. Default: the registry's "
    "advice for this teacher, or the teacher.",
)
@click.option(
    "--layers", type=click.IntRange(min=1), metavar="N",
    help="Layers of it to keep; without --student, layers of the teacher.",
)
@click.option("--recipe", metavar="NAME|FILE", help="Recipe to follow: a shipped one by name, or a YAML file.")
@click.option(
    "--set", "settings", type=setting, metavar="KEY=VALUE", multiple=True,
    help="Override one field of the recipe, e.g. --set training.lr=1e-4; repeat for several.",
)
@click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Stop after N steps of training.")
@click.option("--max-time", type=duration, metavar="TIME", help="Stop training after a time, e.g. 45m or 1h30m.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run at --out, or the latest one.")
@click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run code of its own.")
@_output
@reports
def distill(settings: Sequence[tuple[str, Any]], data: Sequence[str], **options: Any) -> Outcome:
    """Train a small student to give the vectors of a teacher."""
    import emb

    result = emb.distill(data=list(data), overrides=dict(settings), **options)
    return Outcome({"run": result.run, "student": result.student, "scores": result.scores}, _distilled(result.run, result.scores))


@cli.command()
@click.argument("source", required=False, metavar="[RUN]")
@click.option(
    "--layers", type=numbers, metavar="N[,N…]", multiple=True,
    help="Layers to keep, one that was trained as an exit; several make several exports. Default: all.",
)
@click.option(
    "--dim", "dims", type=numbers, metavar="N[,N…]", multiple=True,
    help="Dimensions to keep; several make several exports. Default: all.",
)
@click.option(
    "--int8", is_flag=True,
    help="Also write 8-bit weights: the fastest way that passes --min-cosine on this machine.",
)
@click.option("--int4", is_flag=True, help="Also write 4-bit weights, onnx/model_q4.onnx.")
@click.option("--fp16", is_flag=True, help="Also write 16-bit weights.")
@click.option(
    "--vectors", type=click.Choice(["int8", "binary"]), multiple=True,
    help="Also write graphs that return quantised vectors.",
)
@click.option("--binary", is_flag=True, help="The same as --vectors binary.")
@click.option(
    "--min-cosine", type=click.FloatRange(0, 1), default=0.99, show_default=True,
    help="Lowest cosine to the fp32 slice that int8 may have on any text.",
)
@click.option("--reduce-range", is_flag=True, help="Weights in 7 of the 8 bits: no sum overflows on processors without VNNI.")
@click.option(
    "--heal", type=duration, metavar="TIME",
    help="First train the slice for a time, e.g. 10m, under the rounding of --int8, --int4 and --binary, against the teacher's cached vectors.",
)
@click.option("--heal-data", multiple=True, metavar="PATH", help="Where the texts of the distillation are now. Default: where they were.")
@click.option(
    "--exporter", type=click.Choice(["emb", "optimum", "openvino", "ctranslate2"]), multiple=True, default=["emb"], show_default=True,
    help="With another than emb, also write the files that it makes, to be compared by `emb validate`; repeat for several.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads to measure speed with. Default: all.")
@click.option("--grid", is_flag=True, help="Every trained exit and dim, with 8 bits, measured side by side: grid.html.")
@click.option("--target", type=click.Choice(TARGETS), help="Measure them all and keep the one that serves this purpose best; with --grid, keep all.")
@click.option(
    "--max-mb", type=click.FloatRange(min=0, min_open=True), metavar="MB",
    help="Largest 8-bit file, and largest file that --target may choose. Where 8 bits are too many, the matrices that lose least get 4.",
)
@click.option(
    "--min-quality", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="Share of the best file's quality that --target must keep.",
)
@click.option("--no-verify", is_flag=True, help="Take an artifact whose files have changed since it was written.")
@_output
@reports
def export(
    source: str | None, layers: Lists, dims: Lists, vectors: Sequence[str], binary: bool, no_verify: bool,
    grid: bool, target: str | None, min_quality: float, **options: Any,
) -> Outcome:
    """Cut a student to layers and dims, for serving.

    RUN is a run, a student, or any sentence-transformers folder; by default the latest run.
    """
    import emb

    wanted = tuple(dict.fromkeys([*vectors, *(["binary"] if binary else [])]))
    options |= {"layers": _flat(layers), "dims": _flat(dims), "vectors": wanted, "verify": not no_verify}
    if grid or target:
        return _grid(emb.export_grid(source, target=target, keep=grid, min_quality=min_quality, **options))
    folders = emb.export(source, **options)
    artifacts = [_described(folder) for folder in folders]
    return Outcome({"artifacts": artifacts}, _exported(artifacts))


@cli.command()
@click.argument("artifact", required=False)
@click.option(
    "--against", metavar="MODEL", shell_complete=_model_names,
    help="Model to compare with as well. Default: the teacher, where it can be found.",
)
@click.option(
    "--data", multiple=True, metavar="PATH",
    help="Texts to compare on; the kinds `emb distill --data` takes.",
)
@click.option("--max-texts", type=click.IntRange(min=1), default=500, show_default=True, help="How many of them.")
@click.option("--min-cosine", type=click.FloatRange(0, 1), help="Gate for int8 in place of the artifact's own.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of ONNX Runtime. Default: all.")
@click.option("--no-verify", is_flag=True, help="Take an artifact whose files have changed since it was written.")
@reports
def validate(artifact: str | None, data: Sequence[str], min_cosine: float | None, no_verify: bool, **options: Any) -> Outcome:
    """Prove an artifact against its model.

    The very files that ship are compared with the model they were made from. ARTIFACT is an exported folder; by default the newest export of the latest run. Writes
    parity.json and report.html into it. Exit code 1 if a gate fails.
    """
    import emb

    report = emb.validate(artifact, data=list(data), min_cosine=min_cosine, verify=not no_verify, **options)
    failure = None if report.passed else GateFailed(f"{report.artifact}: a gate failed", "report.html shows which texts moved; export again with another recipe or dim")
    return Outcome(console.plain(report), str(report), failure)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="IN")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--model", metavar="PATH", help="Artifact or sentence-transformers folder. Default: the newest export of the latest run.")
@click.option("--kind", type=click.Choice(["document", "query"]), default="document", show_default=True, help="Which prompt the texts get.")
@click.option("--field", default="text", show_default=True, metavar="NAME", help="Column or key that holds the text.")
@click.option("--column", default="vector", show_default=True, metavar="NAME", help="Column or key that gets the vector.")
@click.option("--dim", type=click.IntRange(min=1), metavar="N", help="Dimensions to keep, re-normalised. Default: all.")
@click.option("--codec", "codec_folder", type=click.Path(path_type=Path), metavar="DIR", help="Store vectors as this codec of `emb codec` codes them.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads to compute with. Default: all.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@reports
def encode(source: Path, out: Path, model: str | None, codec_folder: Path | None, threads: int | None, **options: Any) -> Outcome:
    """Write the vectors of a file of texts.

    IN is .jsonl, .parquet, .csv, .tsv, .txt or .md (also .gz); OUT is .parquet or .jsonl, with each record as it was and its vector,
    or .npy with the vectors alone. Memory does not grow with IN. Stopped in whatever way, the same command goes on where it was.
    """
    import os

    import emb
    from emb.encoder import OnnxEncoder
    from emb.fingerprints import fingerprint
    from emb.quantize.codecs import load_codec
    from emb.runs import newest_export
    from emb.streams import encode_file

    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # pyarrow's own allocator holds on to more than it uses
    coder = load_codec(codec_folder) if codec_folder else None
    folder = Path(model) if model else newest_export()
    encoder = emb.load(folder, threads=threads)
    model_hash = fingerprint(folder, encoder.variant.file if isinstance(encoder, OnnxEncoder) else None)
    count = encode_file(encoder, source, out, codec=coder, model=model_hash, **options)
    size = {"codec": codec_folder, "bytes_per_vector": coder.bytes_per_vector} if coder else {}
    return Outcome({"texts": count, "out": out, "model": folder, "dim": options["dim"] or encoder.dim, **size}, f"{count:,} vectors: {out}")


@cli.command()
@click.argument("models", nargs=-1, metavar="MODEL…")
@click.option(
    "--teacher", metavar="NAME|PATH", shell_complete=_model_names,
    help="Scored too, at each dim; its documents are what student queries are tried on as well.",
)
@click.option(
    "--data", required=True, multiple=True, metavar="PATH",
    help="A BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), a table of sentence1, sentence2, score, or a "
    "folder of those; repeat for several.",
)
@click.option(
    "--dims", type=numbers, metavar="N[,N…]", multiple=True,
    help="Dims to cut the vectors to. Default: common sizes up to the model's own.",
)
@click.option("--layers", type=numbers, metavar="N[,N…]", multiple=True, help="Exits of a student to score. Default: all.")
@click.option(
    "--dtype", type=click.Choice(["fp32", "bf16", "auto"]), default="fp32", show_default=True,
    help="Precision that the teacher computes in.",
)
@click.option(
    "--precision", "precisions", type=click.Choice(["fp32", "fp16", "int8", "int4"]), multiple=True,
    help="Only such files of exported artifacts; repeat for several. Default: all.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path), metavar="DIR",
    help="Keep vectors there, so that a second call does not encode again.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of ONNX Runtime. Default: all.")
@click.option(
    "--codec", "codecs", multiple=True, metavar="DIR",
    help="Also score retrieval with documents stored by this codec of `emb codec`, at its dim, queries as floats; repeat for several.",
)
@click.option("--rescore", metavar="float|int8|DIR", help="Put the codes' first candidates in order by floats, by int8, or by another codec.")
@click.option("--depth", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="How many candidates are rescored.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE",
    help="Also write the scores to a .json file, or the table to an .md file.",
)
@click.option("--markdown", is_flag=True, help="Print the table in Markdown.")
@reports
def evaluate(
    models: Sequence[str], dims: Lists, layers: Lists, out: Path | None, markdown: bool, **options: Any
) -> Outcome:
    """Score models on retrieval and similarity.

    Students are scored on their own and, with --teacher, with their queries on the teacher's documents; the
    teacher with its own vectors cut to each dim. MODEL is a run, a student, an exported artifact (each of its ONNX files is scored), or any model by name or folder.
    """
    from emb.evaluate import evaluate as score

    found = score(models, dims=_flat(dims), layers=_flat(layers), **options)
    if out:
        found.save(out)
    return Outcome(found.as_dict(), found.markdown() if markdown else console.table(found.rows(), found.header()))


@cli.command()
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@click.option("--name", metavar="OWNER/NAME", help="What the lines of code call it. Default: the folder's name.")
@click.option("--license", metavar="ID", help="Licence to state. Default: that of the models it was made from, where it is one and known.")
@click.option("--print", "only_print", is_flag=True, help="Print the card and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a README.md that was written or edited by hand.")
@reports
def card(artifact: Path | None, name: str | None, license: str | None, only_print: bool, overwrite: bool) -> Outcome:
    """Write an artifact's model card.

    README.md in the hub's form, every figure in it read from what emb validate (parity.json) and emb evaluate --out ARTIFACT/evaluation.json
    measured. ARTIFACT is an exported folder; by default the newest export of the latest run.
    """
    from emb.export.card import card as text_of
    from emb.export.card import write_card
    from emb.export.facts import Facts
    from emb.runs import newest_export

    facts = Facts.read(artifact or newest_export(), name, license)
    text = text_of(facts)
    path = None if only_print else write_card(facts, overwrite=overwrite)
    return Outcome({"path": path, "card": text}, text if path is None else f"card: {path}")


@cli.command()
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="OWNER/NAME", help="Repository on the hub; made if it does not exist.")
@click.option("--private", is_flag=True, help="Make the repository private, if it has to be made.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to; made if it does not exist. Default: the main one.")
@click.option("--message", metavar="TEXT", help="Commit message. Default: emb's version, layers and dims.")
@click.option("--license", metavar="ID", help="Licence for the card. Default: that of the models it was made from, where it is one and known.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--allow-failed", is_flag=True, help="Send files that failed their gate; the card says so.")
@click.option("--overwrite", is_flag=True, help="Replace a README.md in the repository that was written by hand.")
@click.option("--no-verify", is_flag=True, help="Take an artifact whose files have changed since it was written.")
@reports
def push(artifact: Path | None, no_verify: bool, **options: Any) -> Outcome:
    """Publish an artifact on the model hub.

    Its own files and a fresh card go in one commit; anything else in the folder stays. ARTIFACT is an exported folder; by default the newest
    export of the latest run. HF_TOKEN or `hf auth login` give the token, HF_ENDPOINT another hub.
    """
    from emb.export.push import push as send
    from emb.runs import newest_export

    return _pushed(send(artifact or newest_export(), verify=not no_verify, **options))


@cli.command()
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@reports
def doctor(artifact: Path | None) -> Outcome:
    """Say which programs will load an artifact.

    For each: whether it gets the same vectors, with which line, and what to change if not. ARTIFACT is an exported folder; by default the newest
    export of the latest run. Exit code 1 if emb itself would refuse it.
    """
    from emb.doctor import examine
    from emb.runs import newest_export

    findings = examine(artifact or newest_export())
    rows = [(found.client, "yes" if found.loads else "no", found.how if found.loads else "; ".join(found.problems)) for found in findings]
    failure = None if findings[0].loads else GateFailed(findings[0].problems[0])
    return Outcome({"clients": [vars(found) | {"loads": found.loads} for found in findings]}, console.table(rows, ("client", "loads", "how, or what to change")), failure)


@cli.command()
@click.option("--language", metavar="NAME", help="Only models for this language, e.g. en or multilingual.")
@reports
def models(language: str | None) -> Outcome:
    """List the models that go by a short name."""
    from emb.registry import teachers

    rows = [teacher for teacher in teachers().values() if language in (None, teacher.languages)]
    header = ("name", "parameters", "layers", "dim", "max tokens", "languages", "licence", "student")
    cells = [(t.name, f"{t.parameters} M", t.layers, t.dim, t.max_length, t.languages, t.licence, f"{t.student_layers} layers of {t.student or 'itself'}") for t in rows]
    return Outcome({"models": rows}, console.table(cells, header))


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


cli.add_command(codec)


def _flat(groups: Lists) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for group in groups for number in group))


def _distilled(run: Path, scores: Sequence[dict[str, Any]]) -> str:
    rows = [(score["layers"], score["dim"], score["cosine"], score["overlap"]) for score in scores]
    best = f"--layers {scores[0]['layers']} --dim {scores[0]['dim']} " if scores else ""
    return f"{console.table(rows, ('layers', 'dim', 'cosine to teacher', 'overlap@10'))}\n\nrun: {run}\nnext: emb export {run} {best}--int8"


def _grid(found: Any) -> Outcome:
    from emb.export.grid import as_dict
    from emb.export.grid_report import as_text

    return Outcome(as_dict(found), as_text(found))


def _described(folder: Path) -> dict[str, Any]:
    from emb.manifest import Manifest, bytes_of

    manifest = Manifest.load(folder)
    files = [vars(variant) | {"bytes": bytes_of(folder, variant.file)} for variant in manifest.variants]
    return {"path": folder, "layers": manifest.layers, "dim": manifest.dim, "variants": files, "healing": manifest.lineage.get("healing")}


def _exported(artifacts: Sequence[dict[str, Any]]) -> str:
    rows = [
        (artifact["layers"], artifact["dim"], file["file"], f"{file['bytes'] / 1e6:.1f} MB", file["weight_dtype"], file["vector_dtype"], file["min_cosine"])
        for artifact in artifacts
        for file in artifact["variants"]
    ]
    header = ("layers", "dim", "file", "size", "weights", "vectors", "min cosine")
    places = "\n".join(f"{artifact['path']}" for artifact in artifacts)
    healed = "".join(_healed(artifact) for artifact in artifacts if artifact["healing"])
    return f"{console.table(rows, header)}\n\n{healed}{places}\nnext: emb validate {artifacts[0]['path']}"


def _healed(artifact: dict[str, Any]) -> str:
    from emb.export.gain_table import HEADER, gain_rows, gain_text

    return f"{artifact['layers']}x{artifact['dim']}: {gain_text(artifact['healing'])}\n{console.table(gain_rows(artifact['healing']), HEADER)}\n\n"


def _pushed(done: Any) -> Outcome:
    rows = [(name, f"{size / 1e6:.2f} MB") for name, size in done.files.items()]
    lines = [console.table(rows, ("file", "size")), ""]
    lines += [f"stays here: {', '.join(done.left)}"] if done.left else []
    lines += [f"removed there: {', '.join(done.removed)}"] if done.removed else []
    lines.append(f"published: {done.url}" if done.url else f"would go to {done.to}: {len(done.files)} files, {sum(done.files.values()) / 1e6:.1f} MB")
    return Outcome(console.plain(done), "\n".join(lines))


def main() -> None:
    """Entry point of the console script."""
    sys.exit(console.run(cli, sys.argv[1:]))


if __name__ == "__main__":
    main()
