"""emb: distil, cut, quantise and prove text-embedding models.

    run = emb.distill(teacher="all-MiniLM-L6-v2", layers=3)
    [artifact] = emb.export(run.run, layers=[3], dims=[128], int8=True)
    emb.validate(artifact).passed
    vectors = emb.load(artifact).encode(["a text"], kind="query")
    emb.index("docs.jsonl", "docs.index", doc="all-MiniLM-L6-v2")
    hits = emb.open_index("docs.index", query=artifact).search("a text")

Importing this package imports neither torch nor numpy; each function imports what it needs.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from emb.distill import rotate
from emb.search.bundling import bundle
from emb.search.calibration import calibrate
from emb.search.index import index, open_index
from emb.search.migration import migrate
from emb.search.server import serve
from emb.search.web import web
from emb.validate.grid import export_grid
from emb.vocabulary.adaptation import adapt_vocab

if TYPE_CHECKING:  # to a type checker each of these is its function
    from emb.distill import distill
    from emb.export import export
    from emb.runtime.encoder import Encoder
    from emb.validate import validate
else:  # a room that can be called (`emb.doors`)
    import emb.distill as distill
    import emb.export as export
    import emb.validate as validate

__all__ = [
    "__version__",
    "adapt_vocab",
    "bundle",
    "calibrate",
    "distill",
    "export",
    "export_grid",
    "index",
    "load",
    "migrate",
    "open_index",
    "rotate",
    "serve",
    "validate",
    "web",
]

try:
    __version__ = importlib.metadata.version("emb-distill")
except importlib.metadata.PackageNotFoundError:  # run from its source without being installed
    __version__ = "0+unknown"


def load(
    path: str | Path,
    *,
    backend: str = "auto",
    file: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    provider: str | None = None,
    verify: bool = True,
    trust_remote_code: bool = False,
) -> Encoder:
    """Open an artifact, or any sentence-transformers folder, for `encode(texts, kind="query")`.

    Args:
        path: the folder.
        backend: "onnx", "torch", or "auto": ONNX if the folder has a file that passed its gate.
        file: one ONNX file of the artifact, by its path in the folder.
        threads: to compute with; None for all.
        device: "cpu", or "cuda" and others that torch knows.
        provider: an execution provider of ONNX Runtime by name, in place of the device's own.
        verify: compare the files that are read with the hashes that the artifact was written with.
        trust_remote_code: let a folder opened in torch run code of its own.

    Raises:
        ArtifactError: not a model folder, no usable ONNX file, or a file that has changed since it was written.
        MissingExtra: torch is needed and not installed.
        UsageError: no such device or provider here.
    """
    from emb.runtime.encoder import load as open_encoder

    return open_encoder(
        path,
        backend=backend,
        file=file,
        threads=threads,
        device=device,
        provider=provider,
        verify=verify,
        trust_remote_code=trust_remote_code,
    )
