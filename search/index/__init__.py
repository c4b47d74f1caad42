"""An index of documents: vectors in few bytes that a crash cannot damage, searched by faiss, kept up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emb.search.index.quality import Quality


@dataclass(frozen=True)
class Indexed:
    """What `index` did.

    Attributes:
        folder: of the index.
        documents: that it holds now.
        added, updated, unchanged, deleted: of those that were given.
        truncated: pieces that were longer than what the encoder reads.
        quality: what the index takes in memory, and finds.
    """

    folder: Path
    documents: int
    added: int
    updated: int
    unchanged: int
    deleted: int
    truncated: int
    quality: Quality


def index(
    documents: str | Path | Sequence[str | Path],
    out: str | Path,
    doc: str | Path | None = None,
    *,
    delete: str | Sequence[str] = (),
    field: str = "text",
    title: str = "title",
    id: str | None = None,
    metadata: str | Sequence[str] | None = None,
    chunk_tokens: int | None = None,
    overlap: int | None = None,
    dim: int | None = None,
    rotate: bool | None = None,
    learn_cut: bool | None = None,
    codec: str | None = None,
    rescore: str | None = None,
    factory: str | None = None,
    cached: bool = True,
    device: str = "cpu",
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> Indexed:
    """Encode documents into the index at `out`, or bring it up to date with them.

    New ids are added, those whose content has changed are encoded again, the same ones are left. Documents that are
    not given stay. Stopped in whatever way, the same call goes on where it was.

    Args:
        documents: files and folders of documents; of a BEIR folder its corpus.
        out: the index's folder.
        doc: the encoder of the documents, a model folder; needed unless only ids are deleted.
        delete: ids of documents that go first.
        field, title, id: columns; without a name for ids, `_id` or `id`, and where there is none a hash of the content.
        metadata: further columns that are kept, and that searches filter by.
        chunk_tokens, overlap: cut documents in pieces of so many of the encoder's tokens, and let each begin with the
            last ones of the piece before.
        dim: dimensions to keep.
        rotate: turn vectors along the documents' own principal axes first, so that a cut loses least.
        learn_cut: learn how documents are cut to `dim` from up to 30,000 queries cut from them, which the encoder
            reads: what these find when they are cut is to be what they find whole. Queries are cut as ever.
        codec: how vectors are stored in memory: float32 (the default), float16, int8, int4, binary.
        rescore: a codec for finer vectors that stay on the disk and put candidates in order.
        factory: faiss's string for what finds candidates, such as "IVF1024,Flat"; None looks at every vector up to
            some size.
        cached: take vectors that distilling has left in the cache: same weights, same text, same prompt.
        device, threads, trust_remote_code: of the encoder, as in `emb.load`.

    What is chosen of `metadata` to `factory` stays: a later call may leave it out.

    Raises:
        EmbError: documents that cannot be read, two of one id, an index of another encoder or layout, one that another
            process is writing, no room.
    """
    from emb.search.index.documents import Columns
    from emb.search.index.run import Choices, run

    sources = [documents] if isinstance(documents, str | Path) else list(documents)
    given = {"dim": dim, "rotate": rotate, "learn_cut": learn_cut, "codec": codec, "rescore": rescore}
    layout = {
        "factory": factory,
        "chunk_tokens": chunk_tokens,
        "overlap": overlap,
        "metadata": None if metadata is None else tuple(_each(metadata)),
    }
    options = {"cached": cached, "device": device, "threads": threads, "trust_remote_code": trust_remote_code}
    return run(
        Path(out),
        Choices([str(each) for each in sources], Columns(field, title, id), _each(delete), given | layout),
        doc,
        options,
    )


def _each(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
