"""The command `emb codec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step
from emb.report.tables import table

KINDS = ("float32", "float16", "lvq8", "int8", "int4", "binary", "bebr", "pq")


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="VECTORS")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    required=True,
    help="How vectors are stored; docs/vectors.md says when to take which.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Folder to write the codec to."
)
@click.option(
    "--dim", type=click.IntRange(min=1), metavar="N", help="Dimensions of VECTORS to keep, re-normalised. Default: all."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=60_000,
    show_default=True,
    metavar="N",
    help="How many vectors to read, evenly spread.",
)
@click.option(
    "--column",
    default="vector",
    show_default=True,
    metavar="NAME",
    help="Column of a Parquet file that holds the vectors.",
)
@click.option(
    "--bits",
    type=click.IntRange(min=1),
    metavar="N",
    help="binary, bebr: bits of a code. Default: one a dimension; bebr: one for two.",
)
@click.option(
    "--rotation",
    type=click.Choice(["none", "random", "itq"]),
    help="binary: what is done to the vectors before their signs are taken. Default: none.",
)
@click.option("--centre", is_flag=True, default=None, help="binary: subtract the mean first.")
@click.option(
    "--codes",
    type=click.IntRange(min=1),
    metavar="N",
    help="bebr: codes that follow one another, each storing what those before it missed. Default: 2.",
)
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="bebr: steps of training. Default: 100.")
@click.option(
    "--compatible",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="bebr: a codec whose stored documents the new codes must find.",
)
@click.option(
    "--pieces",
    type=click.IntRange(min=1),
    metavar="N",
    help="pq: bytes of a code; must divide the dimensions. Default: one for eight dimensions.",
)
@click.option("--seed", type=int, metavar="N", help="binary, bebr: of all that is random. Default: 0.")
@click.option("--overwrite", is_flag=True, help="Replace what --out holds.")
@reports
def codec(
    source: Path,
    kind: str,
    out: Path,
    dim: int | None,
    limit: int,
    column: str,
    compatible: Path | None,
    overwrite: bool,
    **options: Any,
) -> Outcome:
    """Fit a codec that stores vectors in few bytes.

    VECTORS are of training texts, or of the documents that will be searched if those are known and stay: a .npy file,
    a Parquet file of `emb encode`, or a folder of the teacher cache. `emb encode --codec DIR` stores vectors with it.
    """
    from emb.data.vector_files import read_vectors
    from emb.files import refuse_existing
    from emb.quantize.vectors.codecs import fit_codec, load_codec, save_codec
    from emb.similarity import truncated

    refuse_existing(out, overwrite)
    vectors = read_vectors(source, column=column, limit=limit)
    given = {name: value for name, value in options.items() if value is not None} | (
        {"compatible": load_codec(compatible)} if compatible else {}
    )
    fitted, quality = fit_codec(kind, truncated(vectors, dim) if dim else vectors, **given)
    save_codec(fitted, out, quality, overwrite=overwrite)
    found = {
        "codec": out,
        "name": fitted.name,
        "dim": fitted.dim,
        "bytes_per_vector": fitted.bytes_per_vector,
        **vars(quality),
    }
    row = (fitted.name, fitted.dim, fitted.bytes_per_vector, quality.cosine, quality.overlap)
    return Outcome(
        found,
        f"{table([row], ('codec', 'dim', 'bytes', 'cosine', 'overlap@10'))}\n\n{out}\n"
        + next_step("encode", "TEXTS", "VECTORS", "--codec", out),
    )
