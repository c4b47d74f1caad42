"""emb: distil, cut, quantise and prove text-embedding models.

    run = emb.distill(teacher="all-MiniLM-L6-v2", layers=3)
    [artifact] = emb.export(run.run, layers=[3], dims=[128], int8=True)
    emb.validate(artifact).passed
    vectors = emb.load(artifact).encode(["a text"], kind="query")

Importing this package imports neither torch nor numpy; each function imports what it needs.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

# The rooms `distill`, `export` and `validate` and their doors have one name: in this namespace it is the door.
from emb.distill import distill
from emb.export import export
from emb.grid import export_grid
from emb.validate import validate

if TYPE_CHECKING:
    from emb.serve.encoder import Encoder

__all__ = ["__version__", "distill", "export", "export_grid", "load", "validate"]

try:
    __version__ = importlib.metadata.version("emb-distill")
except importlib.metadata.PackageNotFoundError:  # run from its source without being installed
    __version__ = "0+unknown"


def load(path: str | Path, *, backend: str = "auto", file: str | None = None, threads: int | None = None) -> Encoder:
    """Open an artifact, or any sentence-transformers folder, for `encode(texts, kind="query")`.

    Args:
        path: the folder.
        backend: "onnx", "torch", or "auto": ONNX if the folder has a file that passed its gate.
        file: one ONNX file of the artifact, by its path in the folder.
        threads: to compute with; None for all.

    Raises:
        ArtifactError: not a model folder, or no usable ONNX file.
        MissingExtra: torch is needed and not installed.
    """
    from emb.serve.encoder import load as open_encoder

    return open_encoder(path, backend=backend, file=file, threads=threads)
