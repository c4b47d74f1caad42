"""The command `emb index`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import QUESTION, next_step
from emb.commands.options import THREADS
from emb.commands.shared import remote_code

CODECS = ("float32", "float16", "int8", "int4", "binary")
FINER = ("float32", "float16", "lvq8", "int8", "int4")


@click.command()
@click.argument("documents", nargs=-1, metavar="DOCS...")
@click.option("--doc", metavar="MODEL", help="The encoder that documents go through: a folder, a bundle or a name.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="INDEX", help="Folder of the index.")
@click.option(
    "--delete",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Remove the documents whose ids stand in FILE, one a line, before any are added. In a .jsonl each line is a"
    " JSON string, so that an id may hold a line break.",
)
@click.option("--field", default="text", show_default=True, metavar="NAME", help="Column or key that holds the text.")
@click.option(
    "--title", default="title", show_default=True, metavar="NAME", help="Column that holds the title, if any."
)
@click.option(
    "--id", metavar="NAME", help="Column that holds the id. Default: _id or id; without one, a hash of the content."
)
@click.option(
    "--metadata",
    multiple=True,
    metavar="NAME",
    help="Keep this column too, for `emb search --where`. Repeat for several.",
)
@click.option(
    "--chunk-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cut documents in pieces of N of the encoder's tokens.",
)
@click.option(
    "--overlap", type=click.IntRange(min=0), metavar="M", help="Begin a piece with the last M tokens of the one before."
)
@click.option("--dim", type=click.IntRange(min=1), metavar="N", help="Dimensions to keep. Default: all.")
@click.option(
    "--rotate",
    is_flag=True,
    default=None,
    help="Turn vectors along the documents' own principal axes first: a cut then loses least.",
)
@click.option(
    "--learn-cut",
    is_flag=True,
    default=None,
    help="Learn how documents are cut to --dim from up to 30,000 queries cut from them, which the model reads: more is"
    " found again, and queries are cut as ever.",
)
@click.option("--codec", type=click.Choice(CODECS), help="How vectors are kept in memory. Default: float32.")
@click.option(
    "--rescore",
    type=click.Choice(FINER),
    help="Keep finer vectors on the disk that put the codec's candidates in order.",
)
@click.option(
    "--factory",
    metavar="STRING",
    help="What finds candidates, in faiss's words: IVF1024,Flat, HNSW32, BIVF1024. Default: every vector is looked at,"
    " and past 200,000 floats, or 10,000,000 codes of bits, an IVF.",
)
@click.option(
    "--cached/--no-cached",
    default=True,
    show_default=True,
    help="Take vectors that distilling has left in the cache, where there are any.",
)
@click.option("--threads", type=THREADS, metavar="N", help="Threads to encode with. Default: all.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Encode there: cpu, cuda.")
@remote_code
@reports
def index(
    documents: Sequence[str], doc: str | None, out: Path, delete: Path | None, metadata: Sequence[str], **options: Any
) -> Outcome:
    """Encode documents into an index, or bring one up to date.

    DOCS are files and folders: .jsonl, .csv, .tsv, .parquet, .txt or .md (also .gz). Run again, new ids are added,
    changed documents are encoded again, the same ones are left. Stopped in whatever way, the same command goes on where
    it was. What is chosen of --metadata to --factory stays as it was when the index was begun.
    """
    import emb
    from emb.search.index.documents import read_ids

    ids = read_ids(delete) if delete else []
    done = emb.index(documents, out, doc, delete=ids, metadata=list(metadata) or None, **options)
    found, quality = vars(done) | {"quality": vars(done.quality)}, done.quality
    lines = [
        f"{done.documents:,} documents: {done.added:,} added, {done.updated:,} updated, {done.unchanged:,} unchanged,"
        f" {done.deleted:,} deleted"
        + (f" ({len(ids) - done.deleted:,} ids not found)" if done.deleted < len(ids) else ""),
        f"{done.truncated:,} texts were longer than the encoder reads",
        f"memory: {quality.memory / 1e6:,.1f} MB for {quality.vectors:,} vectors"
        + (f", as float32 {quality.floats / 1e6:,.1f} MB" if quality.memory < quality.floats else ""),
        *([] if quality.recall is None else [f"recall@10 of an exact search: {quality.recall:.3f}"]),
        "",
        f"{out}\n{next_step('search', QUESTION, '--index', out, '--query', doc or 'MODEL')}",
    ]
    return Outcome(found, "\n".join(lines))
