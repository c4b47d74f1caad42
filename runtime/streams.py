"""Vectors for a whole file of texts, a block at a time: memory does not grow with the file, and a call that was stopped
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from emb.artifact.fingerprints import content_hash
from emb.data.records import Record, read_records, text_of
from emb.errors import ArtifactError, DataError, UsageError
from emb.progress import bar, note
from emb.quantize.vectors.base import Codec
from emb.runtime.encoder import Encoder
from emb.runtime.unfinished import Unfinished, finish, left_behind, open_unfinished
from emb.runtime.writers import WRITERS, Writer
from emb.similarity import NotFiniteError, Vectors
from emb.tokens import Cut, tell

BLOCK = 1024  # texts in memory at a time, and what a call that is stopped has to do again
_LAYOUT = 1  # of unfinished work


def encode_file(
    encoder: Encoder,
    source: Path,
    out: Path,
    *,
    field: str = "text",
    kind: str = "document",
    dim: int | None = None,
    column: str = "vector",
    overwrite: bool = False,
    codec: Codec | None = None,
    model: str | None = None,
) -> int:
    """Write `source`'s records with their vectors to `out`; return how many there are.

    A .parquet or .jsonl file gets every record as it was with its vector in `column`; a .npy file gets the vectors
    `(records, dim)` alone. With a `codec`, its codes `(records, width)` stand in their place. `out` appears when it
    is whole. With `model`, the fingerprint of `encoder`'s files, a call that was stopped, however, is gone on with
    by the next one with the same arguments.

    Raises:
        DataError: `source` cannot be read, holds no record, or a record lacks `field` or has no text there; null is an
            empty text.
        UsageError: `out` ends in something else, or a record has a `column` already, or the codec is of another dim.
        ArtifactError: `out` exists and `overwrite` is not set, or another process is writing it.
        NotFiniteError: a vector that is not finite; its text is named by its place in `source`, and `out` does not
            appear.
        DiskError: no room; what was done is kept.
    """
    writer = WRITERS.get(out.suffix.lower())
    if writer is None:
        raise UsageError(f"{out}: unknown kind of output", f"known: {' '.join(WRITERS)}")
    _refuse_existing(out, overwrite)
    identity = (
        model
        and content_hash([_LAYOUT, model, kind, dim, codec and codec.fingerprint, field, column, BLOCK, source.name])[
            :12
        ]
    )
    with open_unfinished(out, identity) as job, bar(f"{source.name} (texts)", None) as advance, ExitStack() as stack:
        _tell(job, out)
        target, count = writer(job, source, column, stack), 0
        cuts: list[Cut] = []
        for records, texts in _blocks(source, field, None if out.suffix == ".npy" else column):
            try:
                _add(
                    job,
                    target,
                    records,
                    texts,
                    lambda texts: _coded(encoder.encode(texts, kind=kind, truncate_dim=dim, count=cuts.append), codec),
                )
            except NotFiniteError as error:
                raise error.placed(count, f"{source}: ") from None
            count += len(records)
            advance(len(records))
        if not count:
            raise DataError(f"{source}: holds no text", "give a file with at least one record")
        whole = target.finish()
        _refuse_existing(out, overwrite)
        finish(job, whole, out)
    if cuts:
        tell(sum(cuts[1:], cuts[0]), str(source))
    return count


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise ArtifactError(f"{out}: is a folder", "choose another name, or remove it")
    if out.exists() and not overwrite:
        raise ArtifactError(f"{out}: already exists", "choose another name, or add --overwrite to replace it")


def _tell(job: Unfinished, out: Path) -> None:
    if job.waiting:
        note(f"{out}: going on at text {job.waiting + 1:,}")
    for folder in left_behind(out):
        if folder != job.folder:
            note(f"{folder}: unfinished, of another model, option or source; removed when {out.name} is whole")


def _blocks(source: Path, field: str, column: str | None) -> Iterator[tuple[list[Record], list[str]]]:
    # Of a Parquet file whose records are not written again, other columns need not be read.
    located = read_records(source, field, None if column else (field,))
    while block := list(islice(located, BLOCK)):
        if any(column in record for _, record in block):
            raise UsageError(f"{source}: records have a field {column!r} already", "name another with --column")
        yield [record for _, record in block], [text_of(record, field, where) for where, record in block]


def _add(
    job: Unfinished, target: Writer, records: list[Record], texts: list[str], encode: Callable[[list[str]], Vectors]
) -> None:
    made_from = content_hash(records if target.whole_records else texts)
    if job.take(made_from):
        target.skip(records)
    else:
        target.write(records, encode(texts))
        job.add(made_from, len(texts))


def _coded(vectors: Vectors, codec: Codec | None) -> Vectors:
    return codec.encode(vectors) if codec else vectors
