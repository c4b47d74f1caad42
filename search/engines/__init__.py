"""Where one machine ends: an index copied into Milvus or PostgreSQL, kept up to date there, and searched there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emb.runtime.encoder import Encoder
    from emb.search.engines.copying import Synced
    from emb.search.engines.reader import EngineIndex
    from emb.search.index.reader import Index


def sync(index: str | Path, target: str, *, find: str | None = None, overwrite: bool = False) -> Synced:
    """Copy an index into a vector engine, or bring the copy up to date.

    Passages that are new or have changed are written, those that the index has no more are removed, the same ones are
    left. Stopped in whatever way, the same call goes on where it was.

    Args:
        index: the folder of `emb.index`.
        target: "milvus:FILE.db#NAME" for the engine inside this process, "milvus://HOST:19530#NAME" for a server or a
            cluster, "postgresql://USER@HOST/DATABASE#NAME". NAME is that of the table or collection, "emb" without one.
        find: how the nearest are found there: "hnsw" (the default), "bits" or "exact". It stays as the table was begun.
        overwrite: remove what lies under that name first, whatever it is.

    Raises:
        EngineError: an engine that cannot be reached, or lacks what is needed; a table that is no index.
        ArtifactError: no index, or a table that holds vectors of another space.
        UsageError: an address or a way of finding that the engine does not have.
    """
    from emb.search.engines.copying import copy
    from emb.search.engines.target import read_target

    return copy(Path(index), read_target(target), find, overwrite)


def open_index(
    path: str | Path, query: str | Path | Encoder | None = None, *, any_encoder: bool = False
) -> Index | EngineIndex:
    """Open an index for `search("a text")`.

    Args:
        path: the folder of `index`, or the address that `sync` copied one to.
        query: the encoder of queries: a folder (an export needs no torch), or one that is loaded; None for
            `search_vector` alone.
        any_encoder: take an encoder that is not known to share the documents' vector space.

    Raises:
        ArtifactError: no index, one of another version, or a query encoder of another dim, normalisation, similarity
            or teacher.
        EngineError: an engine that cannot be reached, or holds no index there.
    """
    from emb.search.engines.target import is_target, read_target

    if is_target(path):
        from emb.search.engines.reader import EngineIndex

        return EngineIndex(read_target(str(path)), query, any_encoder=any_encoder)
    from emb.search.index.opening import opened

    return opened(Path(path), query, any_encoder=any_encoder)
