"""`index.json`: what an index holds, whose vectors they are, and how they are stored. Written once, when it begins.

An index that was moved to another encoder lies in a folder inside, and `index.json` names that instead: one small file
that is the old one or the new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emb.errors import ArtifactError, UsageError
from emb.files import read_json, write_json
from emb.search.index.space import Space

SCHEMA = 1
MOVED = 2  # the schema of an `index.json` that names a folder inside
FILE = "index.json"
_INSIDE = re.compile(r"space-[0-9]+")
_ANEW = "build it anew: emb index DOCS --doc MODEL --out DIR"


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder of the documents.

    Attributes:
        name: of its folder.
        fingerprint: of all that loading it reads (`artifact.fingerprints.weights_hash`).
        origins: hashes of the models whose vector space it lives in, its own among them.
        dim, normalize, similarity, prompts, max_length: as it has them.
    """

    name: str
    fingerprint: str
    origins: list[str]
    dim: int
    normalize: bool
    similarity: str
    prompts: dict[str, str]
    max_length: int


@dataclass(frozen=True)
class Layout:
    """What is chosen when an index is begun, and stays.

    Attributes:
        dim: kept of the vectors; None for all.
        rotate: whether they are first turned along the documents' own principal axes.
        learn_cut: whether documents are cut in a way of their own, learned from pseudo-queries (`learned_cut`).
        codec: what candidates are found by.
        rescore: the codec of the finer vectors on disk that put them in order, or None.
        chunk_tokens, overlap: of the pieces that documents are cut in, in the encoder's tokens; None for whole ones.
        metadata: columns kept beside the text.
        factory: faiss's string for a structure that finds candidates, or None.
    """

    dim: int | None = None
    rotate: bool = False
    learn_cut: bool = False
    codec: str = "float32"
    rescore: str | None = None
    chunk_tokens: int | None = None
    overlap: int = 0
    metadata: tuple[str, ...] = ()
    factory: str | None = None

    @property
    def finest(self) -> str:
        """The codec of the finest vectors that are stored."""
        return self.rescore or self.codec

    def given(self, **options: Any) -> Layout:
        """This with the options that are not None in their places.

        Raises:
            UsageError: one of them differs.
        """
        asked = {name: value for name, value in options.items() if value is not None}
        for name, value in asked.items():
            if value != getattr(self, name):
                raise UsageError(
                    f"{name.replace('_', '-')} {value}: the index was begun with {getattr(self, name)}",
                    "leave it out, or build another index with --out",
                )
        return self


@dataclass(frozen=True)
class Description:
    """The content of `index.json`."""

    encoder: EncoderRecord
    layout: Layout
    schema: int = field(default=SCHEMA)

    @property
    def space(self) -> Space:
        """That of the stored vectors, but for the rotation, which is fitted to them."""
        encoder = self.encoder
        return Space.of(encoder.similarity, encoder.normalize, self.layout.dim or encoder.dim)

    @property
    def unrotated(self) -> Space:
        """That of vectors whose rotation is not known yet: without a cut where there will be one."""
        return self.space.whole(self.encoder.dim) if self.layout.rotate else self.space

    def write(self, folder: Path) -> None:
        """Write `folder/index.json`, with the facts that a reader looks for first."""
        space = self.space
        facts = {"schema": self.schema, "dim": space.dim, "length_one": space.length_one, "measure": space.measure}
        content = facts | {key: dataclasses.asdict(getattr(self, key)) for key in ("encoder", "layout")}
        write_json(folder / FILE, content | {"digest": _digest(content)})

    @classmethod
    def load(cls, folder: Path) -> Description:
        """Read `folder/index.json`, or that of the folder inside which it names.

        Raises:
            ArtifactError: no index, one of another version, or a description that was changed by hand.
        """
        folder = home(folder)
        if not (folder / FILE).is_file():
            raise ArtifactError(
                f"{folder}: no index here (no {FILE})", "build one: emb index DOCS --doc MODEL --out DIR"
            )
        value = read_json(folder / FILE)
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise ArtifactError(
                f"{folder / FILE}: an index of version {schema!r}, this program reads version {SCHEMA}",
                _ANEW,
            )
        if value.get("digest", _digest(value)) != _digest(value):  # older ones have none
            raise ArtifactError(
                f"{folder / FILE}: changed since it was written", f"put the former file back, or {_ANEW}"
            )
        return cls.of(value, folder / FILE)

    @classmethod
    def of(cls, value: dict[str, Any], place: object) -> Description:
        """The description that stands in JSON; `place` is where that was read.

        Raises:
            ArtifactError: something is missing, or there is something unknown.
        """
        try:
            layout = Layout(**value["layout"] | {"metadata": tuple(value["layout"]["metadata"])})
            return cls(EncoderRecord(**value["encoder"]), layout)
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{place}: not a whole description ({error})",
                _ANEW,
            ) from error


def _digest(content: dict[str, Any]) -> str:
    read = json.loads(json.dumps({key: content[key] for key in sorted(content) if key != "digest"}))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def home(folder: Path) -> Path:
    """Where an index's files lie: in its folder, or in the one inside that it was moved to.

    Raises:
        ArtifactError: `index.json` names no such folder.
    """
    value = read_json(folder / FILE) if (folder / FILE).is_file() else None
    if not isinstance(value, dict) or value.get("schema") != MOVED or "at" not in value:
        return folder
    inside = str(value["at"])
    if not _INSIDE.fullmatch(inside) or not (folder / inside).is_dir():
        raise ArtifactError(f"{folder / FILE}: names {inside!r}, which is no folder of an index inside", _ANEW)
    return folder / inside


def settle_in(folder: Path, inside: str) -> None:
    """Let the index of `folder` be that in the folder `inside` it, from this moment on."""
    write_json(folder / FILE, {"schema": MOVED, "at": inside})
