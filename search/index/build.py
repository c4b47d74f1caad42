"""Documents into an index: read, compared with what is there, encoded block by block, stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from emb.errors import ArtifactError, UsageError
from emb.files import disk_errors
from emb.locks import held_for_reading, locked
from emb.progress import bar, warn
from emb.runtime.encoder import Encoder
from emb.search.index import checksums, fitted
from emb.search.index.additions import Counts, compared, put, remove
from emb.search.index.catalogue import FILE as SQLITE
from emb.search.index.catalogue import Catalogue
from emb.search.index.chunks import Chunker, Span
from emb.search.index.description import FILE, Description, EncoderRecord, Layout, home
from emb.search.index.documents import Columns, Entry, read_entries, survey
from emb.search.index.graphs import check_factory
from emb.search.index.segments import RAW, append, place
from emb.search.index.storing import Storing
from emb.similarity import NotFiniteError, Vectors
from emb.tokens import Cut, tell

BLOCK = 1024  # documents that are encoded and committed together: what a process that is killed has to do again
LOCK = ".lock"
_T = TypeVar("_T")


@dataclass
class Built:
    """What a run did: counts of documents, and the pieces that were cut off at the encoder's length."""

    counts: Counts = field(default_factory=Counts)
    cuts: list[Cut] = field(default_factory=list)

    @property
    def truncated(self) -> int:
        """Pieces that were longer than what the encoder reads."""
        return sum(cut.cut for cut in self.cuts)


def begin(folder: Path, encoder: EncoderRecord, layout: Layout) -> Description:
    """Write `index.json` of a new index.

    Raises:
        UsageError: a layout that does not go with the encoder.
        ArtifactError: the folder holds something else.
    """
    require_own(folder)
    description = Description(encoder, layout)
    space = description.space
    if not 1 <= space.dim <= encoder.dim:
        raise UsageError(f"dim {space.dim}: the encoder has {encoder.dim}", f"choose 1 to {encoder.dim}")
    if layout.codec not in fitted.KINDS:
        raise UsageError(f"codec {layout.codec!r} does not find candidates", f"choose {', '.join(fitted.KINDS)}")
    if layout.rescore not in (None, *fitted.FINER):
        raise UsageError(f"--rescore {layout.rescore}: no finer codec", f"choose {', '.join(fitted.FINER)}")
    if layout.rescore == layout.codec:
        raise UsageError(f"--rescore {layout.rescore}: no finer than {layout.codec}", "choose lvq8, float16 or float32")
    if layout.overlap and not layout.chunk_tokens:
        raise UsageError("--overlap: documents are not cut", "add --chunk-tokens N")
    if layout.learn_cut and space.dim == encoder.dim:
        raise UsageError(
            "--learn-cut: vectors are not cut", f"choose fewer dims than the encoder's {encoder.dim}, or leave it out"
        )
    if layout.learn_cut and not space.length_one:
        raise UsageError(
            f"--learn-cut: it keeps directions alone, and this encoder's {space.measure} similarity needs lengths",
            "leave it out",
        )
    space.refuse(layout.codec, layout.rescore, layout.rotate, layout.factory)
    if layout.factory:
        check_factory(layout.factory, layout.codec, space.dim, space.measure)
    description.write(folder)
    return description


def require_own(folder: Path) -> None:
    """Make sure that an index is in a folder, or may be begun there.

    Raises:
        ArtifactError: it holds something else.
    """
    known = (LOCK, FILE, f".{FILE}.")  # the last of a run that was killed before it began
    if not is_index(folder) and folder.is_dir() and not all(each.name.startswith(known) for each in folder.iterdir()):
        raise ArtifactError(f"{folder}: holds something that is no index", "choose another --out")


def is_index(folder: Path) -> bool:
    """Whether documents were ever given to an index there: what was chosen for one that got none does not bind."""
    return (folder / FILE).is_file() and (home(folder) / SQLITE).is_file()


def with_lock(folder: Path, work: Callable[[], _T], *, reading: bool = False) -> _T:
    """Do `work` as the only writer of an index, or while nobody writes it: one that is only read may lie where nothing
    can be written.

    Raises:
        ArtifactError: another process is writing it.
    """

    def busy() -> None:
        raise ArtifactError(f"{folder}: another process is writing this index", "wait for it, or choose another --out")

    with (held_for_reading if reading else locked)(folder / LOCK, busy):
        return work()


def change(
    folder: Path,
    description: Description,
    encoder: Encoder | None,
    sources: Sequence[str],
    columns: Columns,
    deleted: Sequence[str] = (),
) -> Built:
    """Remove documents, add and update others, and store their vectors; the lock is held.

    Every block counts once it is committed. Stopped at any moment, the same call goes on behind the last one.

    Raises:
        DataError: a source that cannot be read, or an id that stands twice; nothing was encoded then.
        NotFiniteError: a vector that is not finite; its document is named.
        DiskError: no room; what was committed is kept.
    """
    empty: list[str] = []
    total = survey(read_entries(sources, columns, empty.append)) if sources else 0
    if empty:
        warn(
            f"{empty[0]}: neither title nor text; documents with an id that are left out for that: {len(empty):,}. What"
            " the index holds under their ids stays; --delete removes it"
        )
    entries = read_entries(sources, columns) if sources else ()
    return put_in(folder, description, encoder, entries, total, deleted)


def put_in(
    folder: Path,
    description: Description,
    encoder: Encoder | None,
    entries: Iterable[Entry],
    total: int,
    deleted: Sequence[str] = (),
) -> Built:
    """The same for documents that were looked over already; `folder` is where the index's files lie."""
    built = Built()
    chunker = _chunker(description.layout, encoder) if encoder else None
    with disk_errors(folder), closing(Catalogue(folder, write=True)) as catalogue:
        if deleted:
            with catalogue.writing() as sql:
                built.counts.deleted = remove(sql, deleted)
        if encoder:
            _add(_Adding(folder, description, encoder, catalogue, built, chunker), entries, total)
        with catalogue.errors():
            Storing(folder, description, catalogue, encoder).settle()
    if built.cuts:
        mend = "" if description.layout.chunk_tokens else "--chunk-tokens N cuts documents in pieces"
        tell(sum(built.cuts[1:], built.cuts[0]), "documents", mend)
    return built


def _add(adding: _Adding, entries: Iterable[Entry], total: int) -> None:
    with bar("indexing (documents)", total) as advance:
        for block in _blocks(entries):
            adding.add(block)
            advance(len(block))


def _blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    source = iter(entries)
    while block := list(islice(source, BLOCK)):
        yield block


def as_read(title: str, text: str, span: Span) -> str:
    """What an encoder reads of a document: the title, and a piece of the text."""
    return f"{title} {text[slice(*span)].strip()}".strip()


def _chunker(layout: Layout, encoder: Encoder) -> Chunker | None:
    if layout.chunk_tokens is None:
        return None
    return Chunker(encoder.tokenizer, layout.chunk_tokens, layout.overlap, encoder.prompt("document"))


class _Adding:
    """Blocks of one run, whose vectors go into one segment as they were encoded."""

    def __init__(
        self,
        folder: Path,
        description: Description,
        encoder: Encoder,
        catalogue: Catalogue,
        built: Built,
        chunker: Chunker | None,
    ) -> None:
        self.folder, self.encoder, self.catalogue, self.built = folder, encoder, catalogue, built
        self.chunker, self.dim = chunker, description.encoder.dim
        self.segment, self.rows, self.seen = 0, 0, hashlib.sha256()

    def add(self, entries: Sequence[Entry]) -> None:
        """Compare, encode, write, commit."""
        with self.catalogue.reading() as sql:
            block = compared(sql, entries)
        spans = list(self._spans([entry.text for entry in block.encode]))
        if block.encode:
            self._append(self._encode(block.encode, spans))
        if block.encode or block.facts:
            with self.catalogue.writing() as sql:
                put(sql, block, spans, self.segment, self.rows, self.built.counts)
                if block.encode:
                    checksums.put(sql, place(self.folder, self.segment, RAW), self.seen.hexdigest())
            self.rows += sum(map(len, spans))
        else:
            self.built.counts.unchanged += block.unchanged

    def _spans(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        return self.chunker.spans(texts) if self.chunker else ([(0, len(text))] for text in texts)

    def _encode(self, entries: Sequence[Entry], spans: Sequence[Sequence[Span]]) -> Vectors:
        pieces = [(entry, start, stop) for entry, each in zip(entries, spans, strict=True) for start, stop in each]
        texts = [as_read(entry.title, entry.text, (start, stop)) for entry, start, stop in pieces]
        try:
            found = self.encoder.encode(texts, kind="document", count=self.built.cuts.append)
        except NotFiniteError as error:
            raise NotFiniteError(0, error.text, f"{pieces[error.row][0].where}: ") from None
        return np.asarray(found, np.float32)

    def _append(self, vectors: Vectors) -> None:
        """Write a block's vectors behind those that count, in a segment of this run alone."""
        if not self.segment:
            with self.catalogue.writing() as sql:
                row = sql.execute("INSERT INTO segments (raw, rows, version) VALUES (1, 0, 0)")
                self.segment = int(row.lastrowid or 0)
        rows = np.ascontiguousarray(vectors).tobytes()
        append(place(self.folder, self.segment, RAW), rows, 4 * self.dim * self.rows)
        self.seen.update(rows)
