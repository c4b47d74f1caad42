"""The committed state of an index, in memory: what has not changed since the last look is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from emb.search.index.catalogue import Catalogue
from emb.search.index.description import Description
from emb.search.index.fitted import Fitted, load
from emb.search.index.loaded import Segment, SegmentRow, Stored, members_of, segments_of, stored_of
from emb.search.index.prefix import Prefixes
from emb.search.index.space import Space


@dataclass
class Snapshot:
    """Segments of one state, and the space that queries go to."""

    folder: Path
    description: Description
    state: int = -1
    fitted: Fitted | None = None
    segments: list[Segment] = field(default_factory=list)
    _prefixes: Prefixes = field(default_factory=Prefixes)

    @property
    def space(self) -> Space:
        """Of the vectors as they are searched now: without a cut while a rotation is not known yet."""
        return self.fitted.space if self.fitted else self.description.unrotated

    def cut(self, dim: int | None) -> tuple[Space, list[Segment]]:
        """Its space and its segments in their first `dim` dims; None for all."""
        if dim in (None, self.description.space.dim):
            return self.space, self.segments
        space = replace(self.space, dim=dim)
        return space, self._prefixes.segments(self.segments, space)

    def renew(self, catalogue: Catalogue) -> None:
        """Load what was committed since; call it inside of `catalogue.reading()`."""
        if self.state == (state := catalogue.state()):
            return
        known = {segment.row.id: segment for segment in self.segments}
        fitted = load(catalogue, self.folder, self.description.space)
        if self.fitted is None and fitted is not None:
            known = {}  # raw vectors were searched in another space
        self.fitted, rows = fitted, segments_of(catalogue.sql)
        self.segments = []
        for row in rows:
            old = known.get(row.id)
            if old is not None and old.row == row:
                self.segments.append(old)
                continue
            stored = old.stored if old is not None and old.row.rows == row.rows else self._stored(row)
            self.segments.append(Segment(row, members_of(catalogue.sql, row), stored, self.space))
        self.state = state

    def _stored(self, row: SegmentRow) -> Stored:
        documents = self.fitted.documents if self.fitted else self.space
        return stored_of(self.folder, row, self.fitted, documents, self.description.encoder.dim)
