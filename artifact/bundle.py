"""`bundle.json`: a query encoder and the encoder of the documents that it searches, as one folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emb.errors import ArtifactError
from emb.files import read_json, write_json

FILE = "bundle.json"
QUERY, DOCUMENT, ROUTER = "query", "document", "router"  # folders inside
SCHEMA = 2
_READS = (1, 2)  # 1: nobody had chosen the documents' encoder by measuring, and torch computed in float32
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
        dtype: what torch computes in: "fp32", "bf16" or "fp16".
    """

    name: str
    path: str
    fingerprint: str
    file: str | None
    dim: int
    dtype: str = "fp32"


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


@dataclass(frozen=True)
class TriedEncoder:
    """One way of encoding the documents: what it gained, and what it lost.

    Attributes:
        name, file, dtype: as in `EncoderRecord`; `dtype` is that of the file's weights, where there is one.
        documents_per_second: the median of the rounds.
        cosine, min_cosine: the mean and the smallest cosine of a document's vector to the reference's.
        overlap: the share of the ten documents that the query encoder finds among the reference's vectors which it
            finds among these too.
        ndcg: nDCG@10 × 100 of the query encoder's queries, where they are judged.
        reason: why it was taken, or was not.
    """

    name: str
    file: str | None
    dtype: str
    documents_per_second: float
    cosine: float
    min_cosine: float
    overlap: float
    ndcg: float | None
    passed: bool
    chosen: bool = False
    reason: str = ""


@dataclass(frozen=True)
class ChoiceRecord:
    """How the documents' encoder was chosen: on what, where, by which limits, among whom.

    The first of `tried` is the reference, the documents' model itself in float32; the `spread` is how far its rounds
    lay apart, (slowest, fastest) documents a second.
    """

    data: str
    documents: int
    queries: int
    judged: bool
    dim: int
    device: str
    threads: int | None
    processor: str
    min_cosine: float
    min_overlap: float
    spread: tuple[float, float]
    tried: Sequence[TriedEncoder]

    @property
    def chosen(self) -> TriedEncoder:
        """The one that was taken."""
        return next(each for each in self.tried if each.chosen)

    @property
    def gain(self) -> float:
        """How many times as fast as the reference it is."""
        return self.chosen.documents_per_second / self.tried[0].documents_per_second

    @classmethod
    def read(cls, value: dict[str, Any]) -> ChoiceRecord:
        """From the JSON of `bundle.json`.

        Raises:
            TypeError: a key that is unknown, or one that is missing.
        """
        tried = [TriedEncoder(**each) for each in value["tried"]]
        return cls(**value | {"tried": tried, "spread": tuple(value["spread"])})


@dataclass
class Bundle:
    """The content of `bundle.json`: vectors of `dim` numbers, how they are compared, and who makes them; `choice` is
    how the documents' encoder came to be that one, where it was chosen by measuring.
    """

    query: EncoderRecord
    document: EncoderRecord
    dim: int
    normalize: bool
    similarity: str
    space: SpaceRecord
    choice: ChoiceRecord | None = None
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
        if not isinstance(value, dict) or value.get("schema") not in _READS:
            raise ArtifactError(f"{path}: not a bundle of schema {SCHEMA} or older", _AGAIN)
        if value.get("digest") != _digest(value):
            raise ArtifactError(f"{path}: changed since it was written", _AGAIN)
        try:
            query, document = (EncoderRecord(**value.pop(side)) for side in (QUERY, DOCUMENT))
            space, choice = SpaceRecord(**value.pop("space")), value.pop("choice", None)
            value["schema"] = SCHEMA  # that of what it is written as from now on
            return cls(query, document, space=space, choice=ChoiceRecord.read(choice) if choice else None, **value)
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
