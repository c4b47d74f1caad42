"""`bundle.json`: a query encoder and the encoder of the documents that it searches, as one folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emb.errors import ArtifactError
from emb.files import read_json, write_json

FILE = "bundle.json"
QUERY, DOCUMENT, ROUTER = "query", "document", "router"  # folders inside
SCHEMA = 1
_AGAIN = "bundle the two again: emb bundle --query EXPORT --doc MODEL"


@dataclass(frozen=True)
class EncoderRecord:
    """One of the two encoders.

    Attributes:
        name: by which it was asked for.
        path: its folder, relative to the bundle where it lies inside.
        fingerprint: what its vectors depend on (`artifact.fingerprints`).
        file: the file of an export that is used; None for the folder itself in torch.
        dim: width of its own vectors; those of a wider one are cut to the bundle's.
    """

    name: str
    path: str
    fingerprint: str
    file: str | None
    dim: int


@dataclass(frozen=True)
class SpaceRecord:
    """What both sides were found to share when they were bundled.

    `found` is the share of texts whose query vector is nearest to the vector of the same text as a document, and
    `cosine` the mean cosine of the two. `proven` says that the query encoder names these very weights as its teacher.
    """

    texts: int
    found: float
    cosine: float
    proven: bool


@dataclass
class Bundle:
    """The content of `bundle.json`: vectors of `dim` numbers, how they are compared, and who makes them."""

    query: EncoderRecord
    document: EncoderRecord
    dim: int
    normalize: bool
    similarity: str
    space: SpaceRecord
    schema: int = SCHEMA
    digest: str = ""

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read `folder/bundle.json`.

        Raises:
            ArtifactError: missing, of another schema, or changed by hand.
        """
        path = folder / FILE
        value = read_json(path)
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise ArtifactError(f"{path}: not a bundle of schema {SCHEMA}", _AGAIN)
        if value.get("digest") != _digest(value):
            raise ArtifactError(f"{path}: changed since it was written", _AGAIN)
        try:
            query, document = (EncoderRecord(**value.pop(side)) for side in (QUERY, DOCUMENT))
            return cls(query, document, space=SpaceRecord(**value.pop("space")), **value)
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: {error}", _AGAIN) from error

    def save(self, folder: Path) -> None:
        """Write `folder/bundle.json`, sealed."""
        content = dataclasses.asdict(self)
        self.digest = content["digest"] = _digest(content)
        write_json(folder / FILE, content)

    def folder_of(self, side: EncoderRecord, folder: Path) -> Path:
        """Where an encoder of the bundle in `folder` lies.

        Raises:
            ArtifactError: it is no longer there.
        """
        found = folder / side.path  # of an absolute path, that path
        if not found.is_dir():
            raise ArtifactError(
                f"{folder}: {side.name}, its encoder of {'documents' if side is self.document else 'queries'}, was at"
                f" {side.path} and is not there",
                f"put it back, or {_AGAIN}, with --copy to have it inside",
            )
        return found


def is_bundle(folder: Path) -> bool:
    """Whether `folder` holds a query encoder and its documents' encoder."""
    return (folder / FILE).is_file()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content | {"digest": ""}, sort_keys=True).encode()).hexdigest()
