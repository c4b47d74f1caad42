"""A server of vectors over HTTP, as OpenAI's API and as text-embeddings-inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emb.search.server.run import Served


def serve(
    model: str | Path,
    *,
    index: str | Path | None = None,
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
        index: an index of the same vector space, which `/search` then searches.
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
    from emb.search.server.run import Place, run
    from emb.search.server.settings import Settings

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

    place = Place(host, port, api_key_file)
    return run(load, Path(model), place, Settings(**settings), None if index is None else Path(index))
