"""The encoders of queries that `/search` may be asked for by name, and the dims that each may be searched in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Manifest, is_artifact, weights_name
from emb.errors import ArtifactError, UsageError
from emb.progress import note
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import ArtifactEncoder, Encoder
from emb.search.index.matching import require_fitting, require_same_space
from emb.search.index.reader import Index
from emb.search.server.service import Service
from emb.search.server.settings import Searching, Settings
from emb.search.sides import query_encoder, query_folder

TEACHER, STUDENT = "teacher", "query"


@dataclass(frozen=True)
class Offer:
    """An encoder that queries may be put to.

    Attributes:
        name: by which requests ask for it.
        side: `STUDENT`, or `TEACHER` for the one that encoded the documents.
        layers: None where nothing tells.
        precision: of its weights.
        dims: that its vectors may be searched in, the most first.
        service: its queue; None for the encoder that every route is served by.
    """

    name: str
    side: str
    layers: int | None
    precision: str
    dims: tuple[int, ...]
    service: Service | None = None


@dataclass(frozen=True)
class _Opened:
    name: str
    side: str
    encoder: Encoder
    folder: Path


def open_offers(
    index: Index, served: Encoder | BundleEncoder, folder: Path, searching: Searching, settings: Settings
) -> list[Offer]:
    """All that is offered, the served encoder first; of every dim what a search needs is in memory.

    Raises:
        ArtifactError: an encoder that is none, or of another vector space than the `index`.
        UsageError: nothing to compare with, or dims that the index cannot be searched in.
    """
    for dim in searching.dims:
        _require_dim(index, f"--dim {dim}", dim)
    main = served.query if isinstance(served, BundleEncoder) else served
    opened = [_Opened(str(settings.served_model_name), STUDENT, main, query_folder(folder))]
    for path in searching.also:
        opened.append(_also(index, path, searching.options, {each.name for each in opened}))
    if option := searching.teacher_for:
        opened.append(_teacher(option, index, served, {each.name for each in opened}))
    dims = _prepared(index, {*searching.dims, *(each.encoder.dim for each in opened)})
    return [
        Offer(
            each.name,
            each.side,
            *_made(each),
            tuple(dim for dim in dims if dim <= each.encoder.dim),
            Service(each.encoder, dataclasses.replace(settings, served_model_name=each.name)) if place else None,
        )
        for place, each in enumerate(opened)
    ]


def _also(index: Index, path: Path, options: Mapping[str, Any], taken: set[str]) -> _Opened:
    folder, file = _located(path)
    encoder = query_encoder(folder, **{**options, **({"file": file} if file else {})})
    folder = query_folder(folder)
    _require_floats(path, encoder)
    known = index.description
    try:
        if encoder.dim < known.space.dim and not known.layout.rotate:
            _require_dim(index, f"--also {path}", encoder.dim)
        else:
            require_fitting(encoder, known.encoder, known.layout)
        require_same_space(encoder, folder, known.encoder)
    except ArtifactError as error:
        hint = f"give exports of students of {known.encoder.name}, which encoded the documents"
        raise ArtifactError(f"--also {path}: {error.message}", hint) from error
    made = _Opened(folder.resolve().name, STUDENT, encoder, folder)
    return dataclasses.replace(made, name=_free(f"{made.name}-{_made(made)[1]}", taken))


def _located(path: Path) -> tuple[Path, str | None]:
    """A model's folder, and the file that is meant where `path` is one in an artifact."""
    if path.is_dir():
        return path, None
    folder = next((each for each in path.parents if is_artifact(each)), None) if path.is_file() else None
    if folder is None:
        raise ArtifactError(
            f"--also {path}: no model folder, and no file of one", "give an export, such as exports/2x768, or its file"
        )
    return folder, path.relative_to(folder).as_posix()


def _require_floats(path: Path, encoder: Encoder) -> None:
    if isinstance(encoder, ArtifactEncoder) and (kind := encoder.variant.vector_dtype) != "float32":
        raise UsageError(
            f"--also {path}: its vectors are {kind}, and an index is searched with floats",
            "name a file with float vectors, such as onnx/model.onnx",
        )


def _require_dim(index: Index, said: str, dim: int) -> None:
    try:
        index.require_dim(dim)
    except UsageError as error:
        raise UsageError(f"{said}: {error.message}", error.hint) from error


def _teacher(option: str, index: Index, served: Encoder, taken: set[str]) -> _Opened:
    if not isinstance(served, BundleEncoder):
        raise UsageError(
            f"{option}: this model is no bundle, which alone has the encoder of the documents beside that of queries",
            "join the two: emb bundle --query EXPORT --doc TEACHER",
        )
    record = served.bundle.document
    note(f"opening {record.name} for {option}")
    folder = served.bundle.folder_of(record, served.folder)
    try:
        require_fitting(served.document, index.description.encoder, index.description.layout)
        require_same_space(served.document, folder, index.description.encoder)
    except ArtifactError as error:
        name = index.description.encoder.name
        raise ArtifactError(f"{option}: {error.message}", f"bundle {name}, which encoded the documents") from error
    return _Opened(_free(record.name, taken), TEACHER, served.document, folder)


def _made(opened: _Opened) -> tuple[int | None, str]:
    """Layers, and the precision of the weights."""
    layers = Manifest.load(opened.folder).layers if is_artifact(opened.folder) else None
    if not isinstance(opened.encoder, ArtifactEncoder):
        return layers, "fp32"
    variant = opened.encoder.variant
    return layers, weights_name(variant.weight_dtype, variant.exporter)


def _free(name: str, taken: set[str]) -> str:
    """The name, numbered where it is `taken`."""
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _prepared(index: Index, wanted: set[int]) -> list[int]:
    """Dims that can be searched in, the most first: the index's own, and those of `wanted` that are fewer."""
    whole = index.description.space.dim
    fewer = sorted((dim for dim in wanted if dim < whole), reverse=True)
    for dim in fewer:
        note(f"{dim} dims: {index.prepare(dim) / 1e6:.1f} MB of cut vectors in memory")
    return [whole, *fewer]
