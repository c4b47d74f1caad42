"""A model served until it is told to stop."""

from __future__ import annotations

import dataclasses
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.artifact.bundle import QUERY
from emb.artifact.manifest import Manifest
from emb.errors import UsageError, first_line, needs_extra
from emb.progress import note, warn
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import ArtifactEncoder, Encoder
from emb.search.server.hosts import is_loopback
from emb.search.server.keys import VARIABLE, read_key
from emb.search.server.settings import Searching, Settings
from emb.search.sides import query_folder

if TYPE_CHECKING:
    from fastapi import APIRouter

_KEEP_ALIVE = 60  # seconds that a client may leave a connection unused
_BACKLOG = 2048  # connections that the system holds while the server is busy


@dataclass(frozen=True)
class Place:
    """Where a server listens, and the file with its key."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key_file: str | Path | None = None


@dataclass(frozen=True)
class Served:
    """What a server did: requests it took, and those of them that it answered."""

    model: str
    accepted: int
    answered: int


def run(
    load: Callable[[], Encoder], folder: Path, place: Place, settings: Settings, searching: Searching | None = None
) -> Served:
    """Serve what `load` gives, until SIGTERM or Ctrl-C; of a bundle its query encoder. `searching` brings an index.

    Raises:
        ArtifactError: no index, or one of another vector space.
        MissingExtra: the extra `serve` is not installed.
        UsageError: the place cannot be listened on, its key cannot be read, or the vectors are no floats.
    """
    with needs_extra():
        import fastapi  # noqa: F401
        import uvicorn

        from emb.search.server.app import create_app
        from emb.search.server.heads import BoundedProtocol
        from emb.search.server.page_routes import PAGE
    key = read_key(place.api_key_file)
    name = settings.served_model_name or folder.resolve().name
    settings = dataclasses.replace(settings, served_model_name=name)
    with _listening(place) as listener:
        loaded = encoder = load()
        if isinstance(encoder, BundleEncoder):
            encoder, settings = encoder.query, dataclasses.replace(settings, kind=QUERY, only=QUERY)
        served = query_folder(folder)
        routers = [] if searching is None else search_routers(loaded, folder, searching, settings)
        free = PAGE if searching else ()
        local = key is None and is_loopback(place.host)
        app = create_app(encoder, settings, routers, key=key, about=_about(encoder, served), free=free, local=local)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            http=BoundedProtocol,
            ws="none",  # no route has one, and which library is installed must not decide what an upgrade gets
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=round(settings.timeout) + 1,
        )
        paths = ["/v1/embeddings", "/embed", *(["/search", "/ for a page"] if searching else []), "/openapi.json"]
        _say(listener, place, name, key, paths)
        _until_stopped(lambda: uvicorn.Server(config).run(sockets=[listener]))
    traffic = app.state.service.traffic
    return Served(name, traffic.accepted, traffic.answered)


def search_routers(served: Encoder, folder: Path, searching: Searching, settings: Settings) -> list[APIRouter]:
    """`/search` and the page, for what is `served` and lies in `folder`.

    Raises:
        ArtifactError: no index, or an encoder of another vector space.
        UsageError: nothing to compare with, or dims that the index cannot be searched in.
    """
    from emb.search.calibration.fallback import Fallback
    from emb.search.server.offers import open_offers
    from emb.search.server.page_routes import page_routes
    from emb.search.server.search_routes import open_for, search_routes

    encoder = served.query if isinstance(served, BundleEncoder) else served
    index = open_for(searching.index, encoder, query_folder(folder))
    fallback = None if searching.fallback is None else Fallback.load(folder, index, searching.fallback)
    return [search_routes(index, open_offers(index, served, folder, searching, settings), fallback), page_routes()]


def _listening(place: Place) -> socket.socket:
    if not place.host:  # which the system takes for every address
        raise UsageError("--host is empty", "give 127.0.0.1 for this machine alone, or 0.0.0.0 for every network")
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with ExitStack() as failed:
        try:
            # Named TCP, or asyncio leaves Nagle's algorithm on: every answer would wait 40 ms for an acknowledgement.
            listener = failed.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((place.host, place.port))
            listener.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"--host {place.host} --port {place.port}: cannot be listened on ({first_line(error)})", _hint(error)
            ) from error
        failed.pop_all()
    return listener


def _hint(error: Exception) -> str:
    taken = isinstance(error, OverflowError) or getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
    if taken:
        return "choose another --port, or 0 for one that is free"
    return "give --host an address of this machine, such as 127.0.0.1, or ::1 without brackets"


def _say(listener: socket.socket, place: Place, name: str, key: bytes | None, paths: Sequence[str]) -> None:
    port = listener.getsockname()[1]
    host = f"[{place.host}]" if ":" in place.host else place.host
    if key is None and not is_loopback(place.host):
        warn(f"whoever reaches {host} may ask for vectors: set {VARIABLE} or --api-key-file to ask them for a key")
    note(f"{name} is served on http://{host}:{port} ({', '.join(paths)}); Ctrl-C stops it")


def _until_stopped(serve: Callable[[], None]) -> None:
    """Run the server; it has finished its work when it passes on the signal that stopped it, which is no failure."""
    try:
        serve()
    except KeyboardInterrupt:
        return


def _about(encoder: Encoder, folder: Path) -> dict[str, Any]:
    if isinstance(encoder, ArtifactEncoder):
        return {"dtype": encoder.variant.weight_dtype, "pooling": Manifest.load(folder).pooling}
    model: Any = vars(encoder)["model"]  # in torch, which is not imported here
    return {"dtype": "float32", "pooling": model.spec.pooling}
