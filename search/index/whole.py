"""Whether every byte of an index is as it was written: vectors by checksums, documents by the hashes beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from emb.errors import ArtifactError
from emb.progress import bar
from emb.search.index import fitted
from emb.search.index.catalogue import Catalogue
from emb.search.index.checksums import REBUILD, is_as_written
from emb.search.index.description import Description, home
from emb.search.index.loaded import SegmentRow, members_of, segments_of
from emb.search.index.moving import Moving
from emb.search.index.segments import CODES, FINE, GRAPH, RAW, place
from emb.search.index.soundness import damage_of

_TOLD = 5  # of what is damaged, by name


@dataclass(frozen=True)
class Proven:
    """What was looked at.

    Attributes:
        documents, passages: that the index holds.
        files, bytes: of vectors, compared with their checksums.
    """

    documents: int
    passages: int
    files: int
    bytes: int


def prove(folder: Path) -> Proven:
    """Read all of an index, and of the new one inside of it while it is being moved; nothing is written.

    Raises:
        ArtifactError: something is damaged; or is whole as far as can be told, but for files without a checksum.
    """
    moving = Moving.load(folder)
    if moving is not None:
        moving.matrix(folder)
    found = [_prove(place) for place in (home(folder), *([folder / moving.at] if moving else []))]
    return Proven(found[0].documents, *(sum(values) for values in zip(*map(_figures, found), strict=True)))


def _figures(each: Proven) -> tuple[int, int, int]:
    return each.passages, each.files, each.bytes


def _prove(folder: Path) -> Proven:
    description = Description.load(folder)
    with closing(Catalogue(folder, write=False)) as catalogue, catalogue.reading() as sql:
        _refuse(damage_of(sql), catalogue.path)
        space = fitted.load(catalogue, folder, description.space)
        rows = segments_of(sql)
        paths = {path: (row, digest) for row in rows for path, digest in _files(folder, row, space)}
        _refuse(_changed_files(paths, description.encoder.dim), folder)
        passages = sum(int(members_of(sql, row).live.sum()) for row in rows)
        [documents] = sql.execute("SELECT count(*) FROM documents").fetchone()
    unsealed = [str(path) for path, (_, digest) in paths.items() if digest is None]
    if unsealed:
        raise ArtifactError(
            f"{folder}: no damage is to be seen, but {len(unsealed):,} of its {len(paths):,} files of vectors were"
            f" written by a version without checksums, and cannot be compared ({unsealed[0]})",
            f"to have them, {REBUILD}",
        )
    return Proven(documents, passages, len(paths), sum(path.stat().st_size for path in paths))


def _files(folder: Path, row: SegmentRow, space: fitted.Fitted | None) -> Iterator[tuple[Path, str | None]]:
    """Files of a segment and their checksums, if they have one."""
    stored = (CODES, FINE) if space is not None and space.fine else (CODES,)
    for kind in dict.fromkeys((*((RAW,) if row.raw else stored), *row.sealed)):
        yield place(folder, row.id, kind), row.sealed.get(kind)
    graph = place(folder, row.id, GRAPH)
    if GRAPH not in row.sealed and graph.is_file():
        yield graph, None


def _changed_files(paths: dict[Path, tuple[SegmentRow, str | None]], dim: int) -> Iterator[str]:
    with bar("comparing (files)", len(paths)) as advance:
        for path, (row, digest) in paths.items():
            there = path.is_file()
            size = 4 * dim * row.rows if path.suffix == RAW else path.stat().st_size if there else 0
            if not there or (digest is not None and not is_as_written(path, digest, size)):
                yield f"{path.name} {'has changed' if there else 'is missing'}"
            advance(1)


def _refuse(damage: Iterator[str], where: Path) -> None:
    """Raises:
    ArtifactError: there is any.
    """
    found = list(damage)
    if found:
        more = f", and {len(found) - _TOLD:,} more" if len(found) > _TOLD else ""
        raise ArtifactError(
            f"{where}: damaged: {'; '.join(found[:_TOLD])}{more}", f"put the former files back, or {REBUILD}"
        )
