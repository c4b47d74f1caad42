"""What an index fits to its first documents and keeps: the rotation, how they are cut, the codecs of its vectors."""

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
from emb.progress import note, warn
from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.codecs import CODECS, DESCRIPTION, load_codec, save_codec
from emb.rotation import principal_rotation
from emb.search.index.catalogue import Catalogue
from emb.search.index.checksums import REBUILD
from emb.search.index.description import Layout
from emb.search.index.learned_cut import learn_cut
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
_ROTATION, _CUT, _CODES, _FINE, _SETTING = "rotation.npy", "cut.npy", "codes", "fine", "fitted"


@dataclass(frozen=True)
class Fitted:
    """`space` with its rotation, the codec of candidates, and that of finer vectors, or None; `cut` is the matrix
    `(dim, encoder's dim)` that documents go through instead, where one was learned.
    """

    space: Space
    codec: Codec
    fine: Codec | None
    cut: Vectors | None = None

    @property
    def documents(self) -> Space:
        """The way of documents into the space that queries are searched in."""
        return self.space if self.cut is None else self.space.turned(self.cut)

    @property
    def finest(self) -> Codec:
        """The codec of the finest vectors that are stored."""
        return self.fine or self.codec


def fit(sample: Vectors, layout: Layout, space: Space, asked: Vectors | None = None) -> Fitted:
    """Fit to vectors of the encoder `(texts, encoder's dim)`; where it learns how to cut them, to those of queries too,
    `asked` `(queries, encoder's dim)`.

    Raises:
        DataError: too few of them for a rotation.
    """
    turned = space.turned(principal_rotation(sample)[0] if layout.rotate else None)
    cut = None if asked is None else _cut(asked, sample, turned)
    vectors = (turned if cut is None else turned.turned(cut)).apply(sample)
    learns = [kind for kind in (layout.codec, layout.rescore) if kind in _LEARNS]
    if learns and len(vectors) < _FEW:
        warn(
            f"{' and '.join(learns)}: fitted to {len(vectors):,} vectors only, and what is added later keeps these"
            " ranges; build the index anew when most documents are there"
        )
    fine = _fitted(layout.rescore, vectors) if layout.rescore else None
    return Fitted(turned, _fitted(layout.codec, vectors), fine, cut)


def _cut(asked: Vectors, sample: Vectors, space: Space) -> Vectors | None:
    """The matrix that documents are cut by, or None where it finds no more than cutting both sides alike."""
    found = learn_cut(asked, sample, space)
    said = f"held-out ones find {found.learned:.1%} of their ten documents again, {found.alike:.1%} with both cut alike"
    if found.learned <= found.alike:
        note(f"the cut is not learned: after {len(asked):,} pseudo-queries {said}")
        return None
    note(f"how documents are cut is learned from {len(asked):,} pseudo-queries: {said}")
    return found.matrix


def _fitted(kind: str, vectors: Vectors) -> Codec:
    return CODECS[kind].fit(vectors, **_OPTIONS.get(kind, {}))


def save(fitted: Fitted, index: Path, name: str) -> str:
    """Write what was fitted to `index/name`; return the setting that makes it count."""
    folder = index / name
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed before it counted
    save_codec(fitted.codec, folder / _CODES)
    if fitted.fine:
        save_codec(fitted.fine, folder / _FINE)
    matrices = {"rotation": (fitted.space.rotation, _ROTATION), "cut": (fitted.cut, _CUT)}
    digests = {kind: _save_matrix(matrix, folder / file) for kind, (matrix, file) in matrices.items()}
    for each in (folder / _CODES, *([folder / _FINE] if fitted.fine else []), folder):
        sync_folder(each)
    return json.dumps(
        {
            "folder": name,
            "fine": fitted.fine is not None,
            "sealed": {kind: sha256_file(folder / kind / DESCRIPTION) for kind in _kinds(fitted.fine is not None)},
            **digests,
        }
    )


def _save_matrix(matrix: Vectors | None, path: Path) -> str | None:
    if matrix is None:
        return None
    with atomic_path(path) as partial, partial.open("wb") as handle:
        np.save(handle, matrix, allow_pickle=False)
    return sha256_file(path)


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
    for name, digest in known["sealed"].items():
        _require(folder / name / DESCRIPTION, digest)
    rotation, cut = _read_matrix(folder / _ROTATION, known["rotation"]), _read_matrix(folder / _CUT, known["cut"])
    codec, *finer = (load_codec(folder / kind) for kind in _kinds(known["fine"]))
    return Fitted(space.turned(rotation), codec, finer[0] if finer else None, cut)


def _read(setting: str, index: Path) -> dict[str, Any]:
    try:
        known = json.loads(setting)
        older: dict[str, Any] = {"sealed": {}, "cut": None}  # what an older index does not say
        return {name: known[name] for name in ("folder", "fine", "rotation")} | older | dict(known)
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


def _read_matrix(path: Path, digest: str | None) -> Vectors | None:
    if digest is None:
        return None
    _require(path, digest)
    return np.asarray(np.load(path, allow_pickle=False))


def _require(path: Path, digest: str) -> None:
    if not path.is_file() or sha256_file(path) != digest:
        raise ArtifactError(f"{path}: missing, or changed since it was written", REBUILD)
