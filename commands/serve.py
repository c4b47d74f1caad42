"""The command `emb serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, plain, reports
from emb.commands.options import THREADS, duration
from emb.commands.shared import no_verify, remote_code, trusted_key

_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--index", type=click.Path(path_type=Path), metavar="INDEX", help="An index of `emb index`, for /search to search."
)
@click.option(
    "--compare",
    is_flag=True,
    help="Of a bundle, load the documents' encoder too: the page shows what it finds beside what queries' finds.",
)
@click.option(
    "--also",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="EXPORT",
    help="A further query encoder for /search and the page, or one file of it; may be given several times.",
)
@click.option(
    "--dim",
    "dims",
    type=_COUNT,
    multiple=True,
    metavar="N",
    help="Fewer dims than the index has, to search in as well; may be given several times.",
)
@click.option(
    "--fallback",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Of a bundle with a calibration, load the documents' encoder too, and let it read the queries that the query"
    " encoder is unsure of: about this share of them.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds the key that clients must send. Default: the variable EMB_API_KEY, or no key.",
)
@click.option("--name", "served_model_name", metavar="NAME", help="What clients call it. Default: its folder's name.")
@click.option("--alias", multiple=True, metavar="NAME", help="A further name; may be given several times.")
@click.option(
    "--kind",
    type=click.Choice(["document", "query"]),
    default="document",
    show_default=True,
    help="Which prompt texts get where a request does not say.",
)
@click.option(
    "--auto-truncate/--no-auto-truncate",
    default=True,
    show_default=True,
    help="Cut texts that are too long, or refuse them, where a request does not say.",
)
@click.option("--max-client-batch-size", type=_COUNT, default=2048, show_default=True, help="Texts of one request.")
@click.option("--max-concurrent-requests", type=_COUNT, default=512, show_default=True, help="Beyond, 429.")
@click.option(
    "--max-batch-tokens", type=_COUNT, default=4096, show_default=True, help="Tokens that the encoder gets at once."
)
@click.option(
    "--max-batch-requests", type=_COUNT, default=32, show_default=True, help="Texts that the encoder gets at once."
)
@click.option(
    "--max-queue-texts", type=_COUNT, default=8192, show_default=True, help="Texts that may wait; beyond, 429."
)
@click.option(
    "--max-queue-tokens", type=_COUNT, default=500_000, show_default=True, help="Tokens that may wait; beyond, 429."
)
@click.option("--payload-limit", type=_COUNT, default=2_000_000, show_default=True, help="Bytes of a request.")
@click.option(
    "--timeout", type=duration, default="60s", show_default=True, metavar="TIME", help="For one request; beyond, 504."
)
@click.option("--file", metavar="PATH", help="One model file of the artifact, by its path in the folder.")
@click.option("--threads", type=THREADS, metavar="N", help="Threads to compute with. Default: all.")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Compute there: cpu, cuda, or another that torch knows.",
)
@click.option("--provider", metavar="NAME", help="Execution provider of ONNX Runtime. Default: that of --device.")
@trusted_key
@no_verify
@remote_code
@reports
def serve(model: Path, no_verify: bool, **options: Any) -> Outcome:
    """Serve a model's vectors over HTTP.

    MODEL is an artifact, a bundle, whose query encoder is served, or a sentence-transformers folder. Clients of OpenAI
    (/v1/embeddings) and of text-embeddings-inference (/embed) find what they know; with --index, /search finds
    documents, and a page at / searches for people. SIGTERM and Ctrl-C end it after what was accepted is answered.
    """
    import emb

    served = emb.serve(model, verify=not no_verify, **options)
    return Outcome(plain(served), f"{served.model}: {served.answered:,} of {served.accepted:,} requests answered")
