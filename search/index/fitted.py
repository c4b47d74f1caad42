"""What an index fits to its first documents and keeps: the rotation, and the codecs of its vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ArtifactError
from emb.files import atomic_path, sha256_file
from emb.progress import warn
from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.codecs import CODECS, DESCRIPTION, load_codec, save_codec
from emb.rotation import principal_rotation
from emb.search.index.catalogue import Catalogue
from emb.search.index.checksums import REBUILD
from emb.search.index.description import Layout
from emb.search.index.segments import sync_folder
from emb.search.index.space import Space
from emb.similarity import Vectors

SAMPLE = 20_000  # vectors that are looked at
KINDS = ("float32", "float16", "int8", "int4", "binary")  # that find candidates
FINER = ("float32", "float16", "lvq8", "int8", "int4")  # that put them in order
_LEARNS = ("int8", "int4")  # whose ranges later documents must lie in
_FEW = 1000
# A random rotation finds more than plain signs and does not depend on the documents (docs/vectors.md).
_OPTIONS: dict[str, dict[str, Any]] = {"binary": {"rotation": "random"}}
_ROTATION, _CODES, _FINE, _SETTING = "rotation.npy", "codes", "fine", "fitted"


@dataclass(frozen=True)
class Fitted:
    """`space` with its rotation, the codec of candidates, and that of finer vectors, or None."""

    space: Space
    codec: Codec
    fine: Codec | None

    @property
    def finest(self) -> Codec:
        """The codec of the finest vectors that are stored."""
        return self.fine or self.codec


def fit(sample: Vectors, layout: Layout, space: Space) -> Fitted:
    """Fit to vectors of the encoder `(texts, encoder's dim)`.

    Raises:
        DataError: too few of them for a rotation.
    """
    turned = space.turned(principal_rotation(sample)[0] if layout.rotate else None)
    vectors = turned.apply(sample)
    learns = [kind for kind in (layout.codec, layout.rescore) if kind in _LEARNS]
    if learns and len(vectors) < _FEW:
        warn(
            f"{' and '.join(learns)}: fitted to {len(vectors):,} vectors only, and what is added later keeps these"
            " ranges; build the index anew when most documents are there"
        )
    return Fitted(turned, _fitted(layout.codec, vectors), _fitted(layout.rescore, vectors) if layout.rescore else None)


def _fitted(kind: str, vectors: Vectors) -> Codec:
    return CODECS[kind].fit(vectors, **_OPTIONS.get(kind, {}))


def save(fitted: Fitted, index: Path, name: str) -> str:
    """Write what was fitted to `index/name`; return the setting that makes it count."""
    folder = index / name
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed before it counted
    save_codec(fitted.codec, folder / _CODES)
    if fitted.fine:
        save_codec(fitted.fine, folder / _FINE)
    rotation = fitted.space.rotation
    if rotation is not None:
        with atomic_path(folder / _ROTATION) as partial, partial.open("wb") as handle:
            np.save(handle, rotation, allow_pickle=False)
    for each in (folder / _CODES, *([folder / _FINE] if fitted.fine else []), folder):
        sync_folder(each)
    return json.dumps(
        {
            "folder": name,
            "fine": fitted.fine is not None,
            "sealed": {kind: sha256_file(folder / kind / DESCRIPTION) for kind in _kinds(fitted.fine is not None)},
            "rotation": None if rotation is None else sha256_file(folder / _ROTATION),
        }
    )


def load(catalogue: Catalogue, index: Path, space: Space) -> Fitted | None:
    """What counts as fitted; None before the first documents are stored.

    Raises:
        ArtifactError: a file is missing or has changed.
    """
    setting = catalogue.setting(_SETTING)
    if setting is None:
        return None
    known = _read(setting, index)
    folder = index / known["folder"]
    for name, digest in known["sealed"].items():  # an older index has none
        _require(folder / name / DESCRIPTION, digest)
    rotation = _read_rotation(folder / _ROTATION, known["rotation"]) if known["rotation"] else None
    codec, *finer = (load_codec(folder / kind) for kind in _kinds(known["fine"]))
    return Fitted(space.turned(rotation), codec, finer[0] if finer else None)


def _read(setting: str, index: Path) -> dict[str, Any]:
    try:
        known = json.loads(setting)
        return {name: known[name] for name in ("folder", "fine", "rotation")} | {"sealed": known.get("sealed", {})}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{index}: damaged (what it says of its codecs)", f"put the former files back, or {REBUILD}"
        ) from error


def put(catalogue: Catalogue, setting: str) -> None:
    """Make what `save` wrote count, inside of a transaction."""
    catalogue.put(_SETTING, setting)


def _kinds(fine: bool) -> Sequence[str]:
    """Folders of the codecs: of candidates, and of finer vectors if there are any."""
    return (_CODES, _FINE) if fine else (_CODES,)


def _read_rotation(path: Path, digest: str) -> Vectors:
    _require(path, digest)
    return np.asarray(np.load(path, allow_pickle=False))


def _require(path: Path, digest: str) -> None:
    if not path.is_file() or sha256_file(path) != digest:
        raise ArtifactError(f"{path}: missing, or changed since it was written", REBUILD)
