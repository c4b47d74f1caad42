"""Which file of this room talks to which engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emb.errors import needs_extra
from emb.search.engines.protocol import Engine
from emb.search.engines.target import Target


def connect(target: Target) -> Engine:
    """The engine at `target`.

    Raises:
        EngineError: it cannot be reached, or lacks what is needed.
        MissingExtra: its client is not installed.
    """
    with needs_extra():
        if target.kind == "milvus":
            from emb.search.engines.milvus import Milvus

            return Milvus(target)
        from emb.search.engines.postgres import Postgres

        return Postgres(target)


@contextmanager
def opened(target: Target) -> Iterator[Engine]:
    """The same, closed at the end."""
    engine = connect(target)
    try:
        yield engine
    finally:
        engine.close()
