"""The command `emb export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step
from emb.commands.options import THREADS, duration, layer_numbers, numbers
from emb.commands.shared import Lists, flat, no_verify, output, remote_code
from emb.report.tables import table

TARGETS = ("cpu-latency", "cpu-throughput", "browser", "smallest", "best")


@click.command()
@click.argument("source", required=False, metavar="[RUN]")
@click.option(
    "--layers",
    type=layer_numbers,
    metavar="N[,N…]",
    multiple=True,
    help="Layers to keep, one that was trained as an exit; several make several exports. Default: all.",
)
@click.option(
    "--dim",
    "--dims",
    "dims",
    type=numbers,
    metavar="N[,N…]",
    multiple=True,
    help="Dimensions to keep; several make several exports. Default: all.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Also write 8-bit weights: the fastest way that passes --min-cosine on this machine.",
)
@click.option("--int4", is_flag=True, help="Also write 4-bit weights, onnx/model_q4.onnx.")
@click.option("--fp16", is_flag=True, help="Also write 16-bit weights.")
@click.option(
    "--vectors",
    type=click.Choice(["int8", "binary"]),
    multiple=True,
    help="Also write graphs that return quantised vectors.",
)
@click.option("--binary", is_flag=True, help="The same as --vectors binary.")
@click.option(
    "--min-cosine",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Lowest cosine to the fp32 slice that int8 may have on any text.",
)
@click.option(
    "--reduce-range", is_flag=True, help="Weights in 7 of the 8 bits: no sum overflows on processors without VNNI."
)
@click.option(
    "--heal",
    type=duration,
    metavar="TIME",
    help=(
        "First train the slice for a time, e.g. 10m, under the rounding of --int8, --int4 and --binary, against the"
        " teacher's cached vectors."
    ),
)
@click.option(
    "--heal-data",
    multiple=True,
    metavar="PATH",
    help="Where the texts of the distillation are now. Default: where they were.",
)
@click.option(
    "--exporter",
    type=click.Choice(["emb", "optimum", "openvino", "ctranslate2"]),
    multiple=True,
    default=["emb"],
    show_default=True,
    help=(
        "With another than emb, also write the files that it makes, to be compared by `emb validate`; repeat for"
        " several."
    ),
)
@click.option("--threads", type=THREADS, metavar="N", help="Threads to measure speed with. Default: all.")
@click.option("--grid", is_flag=True, help="Every trained exit and dim, with 8 bits, measured side by side: grid.html.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="Measure them all and keep the one that serves this purpose best; with --grid, keep all.",
)
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help=(
        "Largest 8-bit file, and largest file that --target may choose. Where 8 bits are too many, the matrices that"
        " lose least get 4."
    ),
)
@click.option(
    "--min-quality",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Share of the best file's quality that --target must keep.",
)
@no_verify
@remote_code
@output("LAYERSxDIM below the run's exports/, or exports/NAME-LAYERSxDIM")
@reports
def export(
    source: str | None,
    layers: Lists,
    dims: Lists,
    vectors: Sequence[str],
    binary: bool,
    no_verify: bool,
    grid: bool,
    target: str | None,
    min_quality: float,
    **options: Any,
) -> Outcome:
    """Cut a student to layers and dims, for serving.

    RUN is a run, a student, or any sentence-transformers folder; by default the latest run.
    """
    import emb

    wanted = tuple(dict.fromkeys([*vectors, *(["binary"] if binary else [])]))
    options |= {"layers": flat(layers), "dims": flat(dims), "vectors": wanted, "verify": not no_verify}
    if grid or target:
        return _grid(emb.export_grid(source, target=target, keep=grid, min_quality=min_quality, **options))
    folders = emb.export(source, **options)
    artifacts = [_described(folder) for folder in folders]
    return Outcome({"artifacts": artifacts}, _exported(artifacts))


def _grid(found: Any) -> Outcome:
    from emb.validate.grid.grid import as_dict
    from emb.validate.grid.report import as_text

    return Outcome(as_dict(found), as_text(found))


def _described(folder: Path) -> dict[str, Any]:
    from emb.artifact.manifest import Manifest, bytes_of

    manifest = Manifest.load(folder)
    files = [vars(variant) | {"bytes": bytes_of(folder, variant.file)} for variant in manifest.variants]
    return {
        "path": folder,
        "layers": manifest.layers,
        "dim": manifest.dim,
        "variants": files,
        "healing": manifest.lineage.healing,
    }


def _exported(artifacts: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            artifact["layers"],
            artifact["dim"],
            file["file"],
            f"{file['bytes'] / 1e6:.1f} MB",
            file["weight_dtype"],
            file["vector_dtype"],
            file["min_cosine"],
        )
        for artifact in artifacts
        for file in artifact["variants"]
    ]
    header = ("layers", "dim", "file", "size", "weights", "vectors", "min cosine")
    places = "\n".join(f"{artifact['path']}" for artifact in artifacts)
    healed = "".join(_healed(artifact) for artifact in artifacts if artifact["healing"])
    return f"{table(rows, header)}\n\n{healed}{places}\n{next_step('validate', artifacts[0]['path'])}"


def _healed(artifact: dict[str, Any]) -> str:
    from emb.report.gain_table import HEADER, gain_rows, gain_text

    return (
        f"{artifact['layers']}x{artifact['dim']}:"
        f" {gain_text(artifact['healing'])}\n{table(gain_rows(artifact['healing']), HEADER)}\n\n"
    )
