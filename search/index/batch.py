"""Many queries from a file, what they find to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from emb.data.records import read_records, text_of
from emb.errors import DataError
from emb.files import atomic_path
from emb.progress import bar, warn
from emb.search.index.documents import IDS
from emb.search.index.filters import Where
from emb.search.index.hits import Hit
from emb.search.index.queries import UnsearchableQuery
from emb.search.index.ranking import DEPTH

_FIELD = "text"


class Searchable(Protocol):
    """What finds documents for a text: an index on disk, or one in an engine."""

    def search(self, text: str, k: int, *, where: Where | None, depth: int) -> list[Hit]:
        """See `Index.search`."""


def search_file(
    index: Searchable, queries: Path, out: Path, k: int, *, where: Where | None = None, depth: int = DEPTH
) -> int:
    """Search for the text of every record of `queries`; write one line of JSON for each: its id, and its hits.

    A query that nothing can be searched for has no hits, with a warning; `out` appears when it is whole.

    Raises:
        DataError: a file that cannot be read, or holds no query.
        DiskError: no room.
    """
    count = 0
    with atomic_path(out) as partial, partial.open("w", encoding="utf-8") as handle, bar("searching", None) as advance:
        for count, (stands, record) in enumerate(read_records(queries, _FIELD), 1):
            name = next((str(record[column]) for column in IDS if record.get(column) is not None), str(count))
            text = text_of(record, _FIELD, stands)
            try:
                hits = index.search(text, k, where=where, depth=depth)
            except UnsearchableQuery as error:
                warn(f"{stands}: {error.message}")
                hits = []
            found = [{"rank": hit.rank, "score": hit.score, "id": hit.id} for hit in hits]
            handle.write(json.dumps({"query": name, "hits": found}, ensure_ascii=False) + "\n")
            advance(1)
        if not count:
            raise DataError(f"{queries}: holds no query", "give a file with at least one record")
    return count
