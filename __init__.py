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
import os
from pathlib import Path
from typing import TYPE_CHECKING

from emb.artifact.signature import sign
from emb.distill import rotate
from emb.evaluate import mteb_model
from emb.search.bundling import bundle
from emb.search.calibration import calibrate
from emb.search.engines import open_index, sync
from emb.search.index import index
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
    "mteb_model",
    "open_index",
    "rotate",
    "serve",
    "sign",
    "sync",
    "validate",
    "web",
]

# onnxruntime reports to its makers from 1.31 on, unless this says otherwise by the time it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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
    trusted_key: str | Path | None = None,
    trust_remote_code: bool = False,
) -> Encoder:
    """Open an artifact, or any sentence-transformers folder, for `encode(texts, kind="query")`.

    Args:
        path: the folder.
        backend: "onnx", "torch", or "auto": ONNX if the folder has a file that passed its gate.
        file: one ONNX file of the artifact, by its path in the folder.
        threads: to compute with; None for all.
        device: "cpu", or "cuda" and others that torch knows; of a bundle, that of its documents' encoder.
        provider: an execution provider of ONNX Runtime by name, in place of the device's own.
        verify: compare the files that are read with the hashes that the artifact was written with.
        trusted_key: a file with an ed25519 public key (PEM); refuse the folder unless it is as `emb.sign` signed it
            with that one's private key. Needs the extra `sign`.
        trust_remote_code: let a folder opened in torch run code of its own.

    Raises:
        ArtifactError: not a model folder, no usable ONNX file, a file that has changed since it was written, or a
            folder that is not signed with `trusted_key`.
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
        trusted_key=trusted_key,
        trust_remote_code=trust_remote_code,
    )
