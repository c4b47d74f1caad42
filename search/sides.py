"""The two encoders of a search: the one that documents go through, and the one of queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emb.runtime.encoder import Encoder, load


def document_encoder(path: str | Path, **options: Any) -> Encoder:
    """What encodes documents; `options` are those of `emb.load`.

    Raises:
        ArtifactError: no model there.
    """
    return load(path, **options)


def query_encoder(path: str | Path, **options: Any) -> Encoder:
    """What encodes queries; an export needs no torch.

    Raises:
        ArtifactError: no model there.
    """
    return load(path, **options)
