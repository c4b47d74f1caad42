"""A server of vectors over HTTP, as OpenAI's API and as text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emb.search.server.run import Served


def serve(
    model: str | Path,
    *,
    index: str | Path | None = None,
    compare: bool = False,
    also: Sequence[str | Path] = (),
    dims: Sequence[int] = (),
    fallback: float | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key_file: str | Path | None = None,
    file: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    device: str = "cpu",
    provider: str | None = None,
    verify: bool = True,
    trusted_key: str | Path | None = None,
    trust_remote_code: bool = False,
    **settings: Any,
) -> Served:
    """Serve a model over HTTP until SIGTERM or Ctrl-C, and finish what was accepted by then.

    Args:
        model: an artifact, a bundle, whose query encoder is served, or any sentence-transformers folder.
        index: an index of the same vector space, which `/search` then searches, with a page at `/`.
        compare: of a bundle, load the documents' encoder too: `/search` takes it as an encoder of queries, and the page
            shows what it finds beside what the query encoder finds.
        also: further query encoders of the same space that `/search` and the page offer: folders, or single files of
            artifacts.
        dims: fewer dims than the index has, in which it may be searched as well.
        fallback: of a bundle with a calibration, load the documents' encoder too, and let it read the queries that the
            query encoder is unsure of: about this share of them.
        host: the address to listen on; the default is reached from this machine alone.
        port: 0 takes one that is free and says which.
        api_key_file: holds the key that clients must send; without it, the environment variable `EMB_API_KEY`.
        file, backend, threads, device, provider, verify, trusted_key, trust_remote_code: as in `emb.load`.
        settings: names, limits and prompts, the fields of `emb.search.server.settings.Settings`.

    Raises:
        ArtifactError: not a model folder, or changed since it was written; an index of another vector space.
        MissingExtra: the extra `serve`, or one that the model needs, is not installed.
        UsageError: an address that cannot be listened on, a key that cannot be read, a model whose vectors are no
            floats, or a setting that cannot be carried out.
    """
    from emb.errors import UsageError
    from emb.search.server.run import Place, run
    from emb.search.server.settings import Searching, Settings

    def load() -> Any:
        from emb.runtime.encoder import load as open_encoder

        return open_encoder(
            model,
            backend=backend,
            file=file,
            threads=threads,
            device=device,
            provider=provider,
            verify=verify,
            trusted_key=trusted_key,
            trust_remote_code=trust_remote_code,
        )

    if index is None and (compare or also or dims or fallback is not None):
        raise UsageError("--compare, --also, --dim, --fallback: there is no index to search", "name one with --index")
    options = {"threads": threads, "device": device, "verify": verify, "trust_remote_code": trust_remote_code}
    more = (compare, [*map(Path, also)], dims, options, fallback)
    searching = None if index is None else Searching(Path(index), *more)
    place = Place(host, port, api_key_file)
    return run(load, Path(model), place, Settings(**settings), searching)
