"""Segments written anew: vectors as they were encoded become codes, and rows that are dead are left out.

New files are whole and on the disk before the one transaction that moves the passages to them; the old ones go after
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emb.progress import note
from emb.quantize.vectors.base import Codec, Codes
from emb.runtime.encoder import Encoder
from emb.search.index import checksums
from emb.search.index import fitted as fitting
from emb.search.index.asked import asked_of
from emb.search.index.candidates import Rows
from emb.search.index.catalogue import Catalogue
from emb.search.index.description import Description
from emb.search.index.fitted import SAMPLE, Fitted
from emb.search.index.graphs import build, factory_for
from emb.search.index.loaded import SegmentRow, codes_of, raw_vectors, require_as_written, segments_of
from emb.search.index.segments import CODES, FINE, GRAPH, place, remove_others, write
from emb.similarity import Vectors, neighbour_overlap, neighbours_found

_MANY = 8  # segments; every one is searched on its own
_DEAD = 0.25  # of the rows
_BLOCK = 8192  # rows at a time
_JUDGED = 2000  # vectors whose neighbours are compared


@dataclass(frozen=True)
class Source:
    """Rows of an old segment that live on, and the passages they belong to."""

    row: SegmentRow
    passages: Rows
    rows: Rows


class Storing:
    """Rewrites segments of one index, whose lock is held."""

    def __init__(
        self, index: Path, description: Description, catalogue: Catalogue, encoder: Encoder | None = None
    ) -> None:
        self.index, self.description, self.catalogue, self.encoder = index, description, catalogue, encoder
        self.sql, self.dim = catalogue.sql, description.encoder.dim

    def settle(self) -> None:
        """Store what was encoded, and put segments together where there are many, or much in them is dead.

        Where the cut is learned, vectors wait as they were encoded until an encoder is there to read queries.
        """
        if self._waits():
            return
        segments = segments_of(self.sql)
        sources = [self._source(row) for row in segments]
        merge = len([row for row in segments if not row.raw]) >= _MANY or _dead(sources) > _DEAD
        chosen = [source for source in sources if source.row.raw or merge]
        if chosen:
            self._rewrite(chosen)
        remove_others(self.index, {row.id for row in segments_of(self.sql)})

    def _waits(self) -> bool:
        if self.encoder or not self.description.layout.learn_cut:
            return False
        return fitting.load(self.catalogue, self.index, self.description.space) is None

    def _source(self, row: SegmentRow) -> Source:
        found = self.sql.execute("SELECT key, row FROM passages WHERE segment = ? ORDER BY row", (row.id,))
        table: Any = np.fromiter(found, np.dtype((np.int64, 2)))
        return Source(row, table[:, 0], table[:, 1])

    def _rewrite(self, sources: Sequence[Source]) -> None:
        total = sum(len(source.rows) for source in sources)
        known = fitting.load(self.catalogue, self.index, self.description.space)
        number = self._next_number()
        fitted, setting = (known, None) if known or not total else self._fit(sources, number)
        for source in sources:
            require_as_written(self.index, source.row, self.dim)  # written anew, damage would be sealed
        sealed = self._write(fitted, sources, number, total) if fitted and total else {}
        with self.catalogue.writing() as sql:
            if setting:
                fitting.put(self.catalogue, setting)
            if total:
                sql.execute("INSERT INTO segments VALUES (?, 0, ?, 0)", (number, total))
                keys = (int(key) for source in sources for key in source.passages)
                moved = ((number, row, key) for row, key in enumerate(keys))
                sql.executemany("UPDATE passages SET segment = ?, row = ? WHERE key = ?", moved)
            sql.executemany("DELETE FROM segments WHERE id = ?", [(source.row.id,) for source in sources])
            for path in (place(self.index, each.row.id, kind) for each in sources for kind in each.row.sealed):
                checksums.forget(sql, path)
            for path, digest in sealed.items():
                checksums.put(sql, path, digest)

    def _next_number(self) -> int:
        last = self.sql.execute("SELECT seq FROM sqlite_sequence WHERE name = 'segments'").fetchone()
        return (last[0] if last else 0) + 1

    def _fit(self, sources: Sequence[Source], number: int) -> tuple[Fitted, str]:
        """Fit to the documents that are there, in the order of their ids: whatever order they came in."""
        sample = self._sample(sources)
        fitted = fitting.fit(sample, self.description.layout, self.description.space, self._asked())
        kept = _kept(sample[:: -(-len(sample) // _JUDGED)], fitted)
        note(f"vectors as they are stored keep {kept:.1%} of the ten nearest")
        return fitted, fitting.save(fitted, self.index, f"fitted-{number:06d}")

    def _asked(self) -> Vectors | None:
        """Vectors of queries that the cut of documents is learned from; None where it is not."""
        learns = self.description.layout.learn_cut and self.encoder
        return asked_of(self.sql, learns) if learns else None

    def _sample(self, sources: Sequence[Source]) -> Vectors:
        files = {each.row.id: raw_vectors(self.index, each.row, self.dim) for each in sources if each.row.raw}
        found = self.sql.execute(
            "SELECT segment, row FROM passages JOIN documents ON document = documents.key ORDER BY id, start"
        )
        places = np.fromiter(found, np.dtype((np.int64, 2)))
        places = places[:: -(-len(places) // SAMPLE)]
        return np.stack([np.asarray(files[segment][row]) for segment, row in places.tolist()])

    def _write(self, fitted: Fitted, sources: Sequence[Source], number: int, total: int) -> dict[Path, str]:
        """Write a segment's files; return their checksums."""
        kinds = {CODES: fitted.codec} | ({FINE: fitted.fine} if fitted.fine else {})
        places = {kind: place(self.index, number, kind) for kind in (*kinds, GRAPH)}
        sealed = {
            places[kind]: write(places[kind], self._parts(fitted, codec, kind, sources))
            for kind, codec in kinds.items()
        }
        row, layout = SegmentRow(number, False, total, 0), self.description.layout
        measure = fitted.space.measure
        factory = layout.factory or factory_for(total, layout.codec, measure)
        places[GRAPH].unlink(missing_ok=True)  # of a run that was killed before it counted
        if factory:
            codes = codes_of(self.index, row, fitted.codec, CODES)
            sealed[places[GRAPH]] = build(factory, fitted.codec, codes, measure, places[GRAPH])
        return sealed

    def _parts(self, fitted: Fitted, codec: Codec, kind: str, sources: Sequence[Source]) -> Iterator[Codes]:
        for source in sources:
            raw = source.row.raw
            old = (
                raw_vectors(self.index, source.row, self.dim) if raw else codes_of(self.index, source.row, codec, kind)
            )
            for start in range(0, len(source.rows), _BLOCK):
                part = old[source.rows[start : start + _BLOCK]]
                yield codec.encode(fitted.documents.apply(part)) if raw else part


def _dead(sources: Sequence[Source]) -> float:
    rows = sum(source.row.rows for source in sources if not source.row.raw)
    return 1 - sum(len(source.rows) for source in sources if not source.row.raw) / rows if rows else 0.0


def _kept(vectors: Vectors, fitted: Fitted) -> float:
    """Mean share of the ten nearest by the encoder's own vectors that those stored still have nearest."""
    space = fitted.space
    whole = space.turned(None).whole(vectors.shape[1]).apply(vectors)
    stored = fitted.finest.decode(fitted.finest.encode(fitted.documents.apply(vectors)))
    if fitted.cut is not None:
        return neighbours_found(whole, space.apply(vectors), stored)
    return neighbour_overlap(whole, stored, measure=space.measure)
