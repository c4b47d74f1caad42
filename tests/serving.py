"""An application asked over ASGI, or over a port of this machine; and an encoder that can be held up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn

from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import Encoder, load
from emb.search.server.app import create_app
from emb.search.server.page_routes import PAGE
from emb.search.server.run import search_routers
from emb.search.server.settings import Searching, Settings
from emb.similarity import Vectors

Found = TypeVar("Found")


def asked(app: Any, talk: Callable[[httpx.AsyncClient], Awaitable[Found]]) -> Found:
    """What `talk` finds with a client of `app`, over ASGI."""

    async def whole() -> Found:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://emb", timeout=60) as client:
            return await talk(client)

    return asyncio.run(whole())


def post(app: Any, path: str, body: Any = None, **options: Any) -> httpx.Response:
    """One request."""
    return asked(app, lambda client: client.post(path, **({"json": body} | options)))


def get(app: Any, path: str, **options: Any) -> httpx.Response:
    """One request."""
    return asked(app, lambda client: client.get(path, **options))


@contextmanager
def listening(app: Any, **options: Any) -> Iterator[str]:
    """Answer on a free port of the loopback interface until the block ends; yield the address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that another thread or process brings about."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


class Held:
    """In place of an encoder's `encode_ids`: it notes each batch, counts those for one thread, and waits while held."""

    def __init__(self, encoder: Encoder) -> None:
        self.inner, self.free, self.batches = encoder.encode_ids, threading.Event(), list[list[int]]()
        self.beside = 0
        self.free.set()

    def __call__(self, rows: Sequence[Any], **options: Any) -> Vectors:
        self.batches.append([len(row) for row in rows])
        self.beside += options.get("here", False)
        assert self.free.wait(30)
        return self.inner(rows, **options)


def searching_app(
    model: Path, index: Path, *, key: bytes | None = None, settings: Settings | None = None, **more: Any
) -> Any:
    """What `emb serve MODEL --index INDEX` serves; `more` are fields of `Searching`."""
    settings = settings or Settings(model.name, kind="query")
    loaded = load(model, threads=1)
    routers = search_routers(loaded, model, Searching(index, **more), settings)
    encoder = loaded.query if isinstance(loaded, BundleEncoder) else loaded
    return create_app(encoder, settings, routers, key=key, free=PAGE)
