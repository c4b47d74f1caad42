"""The command `emb encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.options import THREADS
from emb.commands.shared import no_verify, remote_code


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="IN")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option(
    "--model",
    metavar="PATH",
    help="Artifact or sentence-transformers folder. Default: the newest export of the latest run.",
)
@click.option(
    "--kind",
    type=click.Choice(["document", "query"]),
    default="document",
    show_default=True,
    help="Which prompt the texts get.",
)
@click.option("--field", default="text", show_default=True, metavar="NAME", help="Column or key that holds the text.")
@click.option(
    "--column", default="vector", show_default=True, metavar="NAME", help="Column or key that gets the vector."
)
@click.option("--dim", type=click.IntRange(min=1), metavar="N", help="Dimensions to keep, re-normalised. Default: all.")
@click.option(
    "--codec",
    "codec_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Store vectors as this codec of `emb codec` codes them.",
)
@click.option("--threads", type=THREADS, metavar="N", help="Threads to compute with. Default: all.")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Compute there: cpu, cuda, or another that torch knows.",
)
@click.option(
    "--provider",
    metavar="NAME",
    help="Execution provider of ONNX Runtime, e.g. OpenVINOExecutionProvider. Default: that of --device.",
)
@no_verify
@remote_code
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@reports
def encode(
    source: Path,
    out: Path,
    model: str | None,
    codec_folder: Path | None,
    threads: int | None,
    device: str,
    provider: str | None,
    no_verify: bool,
    trust_remote_code: bool,
    **options: Any,
) -> Outcome:
    """Write the vectors of a file of texts.

    IN is .jsonl, .parquet, .csv, .tsv, .txt or .md (also .gz); OUT is .parquet or .jsonl, with each record as it
    was and its vector, or .npy with the vectors alone. Memory does not grow with IN. Stopped in whatever way, the
    same command goes on where it was.
    """
    import os

    import emb
    from emb.artifact.fingerprints import fingerprint
    from emb.artifact.runs import newest_export
    from emb.quantize.vectors.codecs import load_codec
    from emb.runtime.encoder import ArtifactEncoder
    from emb.runtime.streams import encode_file

    # pyarrow's own allocator holds on to more than it uses.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    coder = load_codec(codec_folder) if codec_folder else None
    folder = Path(model) if model else newest_export()
    encoder = emb.load(
        folder,
        threads=threads,
        device=device,
        provider=provider,
        verify=not no_verify,
        trust_remote_code=trust_remote_code,
    )
    model_hash = fingerprint(folder, encoder.variant.file if isinstance(encoder, ArtifactEncoder) else None)
    count = encode_file(encoder, source, out, codec=coder, model=model_hash, **options)
    size = {"codec": codec_folder, "bytes_per_vector": coder.bytes_per_vector} if coder else {}
    return Outcome(
        {"texts": count, "out": out, "model": folder, "dim": options["dim"] or encoder.dim, **size},
        f"{count:,} vectors: {out}",
    )
