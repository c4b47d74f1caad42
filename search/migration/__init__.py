"""An index moved to another encoder: what its old vectors are worth, a map in between, and re-encoding meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emb.search.migration.check import Check


@dataclass(frozen=True)
class Migrated:
    """What `migrate` did.

    Attributes:
        folder: of the index.
        state: "checked", "moved", "finished" or "undone".
        check: what was found of the old vectors; None of an undone migration.
        documents: of the index.
        left: of those that are not encoded by the new model yet.
        truncated: pieces that were longer than what it reads, of those encoded by this call.
    """

    folder: Path
    state: str
    check: Check | None
    documents: int
    left: int
    truncated: int


def migrate(
    index: str | Path,
    to: str | Path | None = None,
    *,
    query: str | Path | None = None,
    old: str | Path | None = None,
    check: bool = False,
    finish: bool = False,
    undo: bool = False,
    data: str | Path | None = None,
    sample: int = 2000,
    seed: int = 0,
    dim: int | None = None,
    cached: bool = True,
    device: str = "cpu",
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> Migrated:
    """Move an index to another encoder of documents, while it is searched by the old one and the new one.

    First some documents are encoded anew: what a search keeps of the old vectors as they are, and through a linear map,
    is told. Then the map takes new queries to the old vectors, and all documents are encoded anew, from the texts that
    the index keeps. Stopped in whatever way, the same call goes on where it was.

    Args:
        index: the folder of `emb.index`.
        to: the new encoder of documents: a model folder, a bundle or a name; None goes on with a migration under way.
        query: the new encoder of queries; None for the bundle's own, or that of the documents.
        old: the encoder so far, a bundle or a model: the map is learned from pseudo-queries that its query encoder and
            the new one read, and keeps more; None fits it to documents alone.
        check: look and tell, and change nothing.
        finish: let the new vectors be the index, and remove the old ones.
        undo: remove the new ones; until it is finished the old index is as it was.
        data: a BEIR folder whose judged queries say what a search keeps; None cuts queries from documents.
        sample, seed: how many documents are encoded to see what the old vectors are worth, and their draw.
        dim: dimensions to keep of the new vectors; None for as many as before.
        cached: take vectors of documents that distilling has left in the cache, as `emb.index` does.
        device, threads, trust_remote_code: of the encoders, as in `emb.load`.

    Raises:
        EmbError: no index, or one that another process is moving; another model than that of a migration under way;
            documents that are still on their way when it is finished; no room.
    """
    from emb.search.migration.run import Wanted, run

    options = {"device": device, "threads": threads, "trust_remote_code": trust_remote_code}
    wanted = Wanted(to, query, old, data, sample, seed, dim, cached, options)
    return run(Path(index), wanted, look=check, end=finish, back=undo)
