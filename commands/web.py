"""The command `emb web`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.shared import remote_code

CODECS = ("int8", "binary")


@click.command()
@click.argument("query", metavar="QUERY-ENCODER", type=click.Path(path_type=Path))
@click.argument("documents", nargs=-1, required=True, metavar="DOCS...")
@click.option("--doc", metavar="MODEL", help="Folder of the documents' encoder, or of a bundle. Default: the bundle's.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace what --out holds.")
@click.option("--field", default="text", show_default=True, metavar="NAME", help="Column or key that holds the text.")
@click.option("--dim", type=click.IntRange(min=1), metavar="N", help="Dimensions to keep. Default: all.")
@click.option(
    "--codec", type=click.Choice(CODECS), default="int8", show_default=True, help="How documents' vectors are stored."
)
@click.option(
    "--snippet",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    metavar="N",
    help="Characters of each text that the page shows.",
)
@click.option("--title", metavar="TEXT", help="Title of the page. Default: the name of the documents.")
@click.option(
    "--onnxruntime-web",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="For an encoder with layers: the npm package, as a folder or a .tgz. Default: from the registry, once.",
)
@remote_code
@reports
def web(query: Path, documents: Sequence[str], **options: Any) -> Outcome:
    """Write a folder that searches documents in the browser.

    QUERY-ENCODER is a static encoder (0 layers), the export of one with layers, a run that has a static one, or a
    bundle. DOCS are files and folders: .jsonl, .csv, .tsv, .parquet, .txt or .md (also .gz). The folder needs no
    server but one of files, and fetches nothing from elsewhere.
    """
    import emb

    page = emb.web(query, documents, **options)
    whole, texts = page.download, page.texts
    tried = "tried on the reader's machine" if page.cosine is None else f"within cosine {page.cosine:.4f}"
    lines = [
        f"{page.documents:,} documents, {page.dim} dims, {page.codec}; query vectors {tried}",
        f"download: {whole.bytes / 1e6:.2f} MB ({whole.unpacked / 1e6:.2f} unpacked), of which texts"
        f" {texts.bytes / 1e6:.2f} MB ({texts.unpacked / 1e6:.2f})",
        "",
        f"{page.folder}\nnext: python -m http.server --directory {page.folder}",
    ]
    return Outcome({"page": page}, "\n".join(lines))
