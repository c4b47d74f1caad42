"""Which of an index's two spaces a query encoder belongs to while the index is on its way to another encoder."""

from __future__ import annotations

from pathlib import Path

from emb.errors import UsageError
from emb.runtime.encoder import Encoder
from emb.search.index.description import Description
from emb.search.index.matching import folder_of
from emb.search.index.mixed import MixedIndex
from emb.search.index.moving import Moving
from emb.search.index.reader import Index
from emb.search.origins import origins


def opened(
    folder: Path, query: str | Path | Encoder | None, *, model: Path | None = None, any_encoder: bool = False
) -> Index:
    """Open an index for an encoder of queries; `model` is the folder of one that is loaded.

    Raises:
        ArtifactError: as `Index`.
        UsageError: an index that is being moved, and an encoder that does not say whose vectors it gives.
    """
    moving = Moving.load(folder)
    if moving is not None and query is not None:
        place = folder_of(query, model)
        if _belongs_to_new(folder, moving, place):
            return MixedIndex(folder, moving, query, model=place, any_encoder=any_encoder)
    return Index(folder, query, model=model, any_encoder=any_encoder)


def _belongs_to_new(folder: Path, moving: Moving, model: Path | None) -> bool:
    old, new = (Description.load(place).encoder for place in (folder, folder / moving.at))
    if model is None:
        raise UsageError(
            f"{folder}: is being moved from {old.name} to {new.name}, and a loaded encoder does not say whose vectors"
            " it gives",
            "give its folder instead",
        )
    found = origins(model)
    return bool(found & set(new.origins)) and not found & set(old.origins)
