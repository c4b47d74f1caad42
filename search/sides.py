"""The two encoders of a search: the one that documents go through, and the one of queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emb.artifact.bundle import Bundle, EncoderRecord, is_bundle
from emb.artifact.lineage import TeacherRecord
from emb.artifact.manifest import Manifest, is_artifact
from emb.errors import UsageError
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import Encoder, load
from emb.search.known_vectors import with_known_vectors
from emb.teachers.registry import remembered, resolve


def document_encoder(path: str | Path, *, cached: bool = False, **options: Any) -> Encoder:
    """What encodes documents, of a bundle its documents' encoder; `cached` takes vectors that distilling left in the
    cache where there are any, and `options` are those of `emb.load`.

    Raises:
        ArtifactError: no model there.
    """
    found = load(_located(path), **options)
    encoder = found.document if isinstance(found, BundleEncoder) else found
    return with_known_vectors(encoder, document_folder(path)) if cached else encoder


def document_folder(path: str | Path) -> Path:
    """The folder of what encodes documents: of a bundle, that of its documents' encoder.

    Raises:
        ArtifactError: a bundle whose documents' encoder is gone.
    """
    return _folder(path, lambda bundle: bundle.document)


def shared_dim(path: str | Path) -> int | None:
    """How many dims of the documents' vectors a bundle's queries have; None for any other model."""
    return Bundle.load(Path(path)).dim if is_bundle(Path(path)) else None


def query_encoder(path: str | Path, *, cached: bool = False, **options: Any) -> Encoder:
    """What encodes queries, of a bundle its query encoder; an export needs no torch. `cached` as above.

    Raises:
        ArtifactError: no model there.
    """
    found = load(_located(path), **options)
    encoder = found.query if isinstance(found, BundleEncoder) else found
    return with_known_vectors(encoder, query_folder(path)) if cached else encoder


def query_folder(path: str | Path) -> Path:
    """The folder of what encodes queries, in the same way."""
    return _folder(path, lambda bundle: bundle.query)


def teacher_of(name: str, folder: Path) -> tuple[str, Path]:
    """Name and folder of the model that a query encoder was distilled from; `name` is what an error calls the encoder.

    Raises:
        UsageError: it is not on this machine, or none is named.
    """
    teacher: TeacherRecord | None = Manifest.load(folder).lineage.teacher if is_artifact(folder) else None
    for found in remembered(teacher, folder) if teacher else ():
        return found.name, found.path
    known = f"its teacher {teacher.name} is not on this machine" if teacher else "names no teacher"
    raise UsageError(f"{name}: {known}", "give the documents' model: --doc PATH")


def _folder(path: str | Path, side: Callable[[Bundle], EncoderRecord]) -> Path:
    folder = _located(path)
    if not is_bundle(folder):
        return folder
    found = Bundle.load(folder)
    return found.folder_of(side(found), folder)


def _located(path: str | Path) -> Path:
    """A folder as it is, or that of a model by its name."""
    return Path(path) if Path(path).is_dir() else resolve(path).path
