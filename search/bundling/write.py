"""Writing a bundle: find both models, check that they share a space, put them together."""

from __future__ import annotations

import shutil
from pathlib import Path

from emb.artifact.bundle import DOCUMENT, QUERY, ROUTER, Bundle, EncoderRecord
from emb.artifact.fingerprints import fingerprint
from emb.artifact.lineage import TeacherRecord
from emb.artifact.manifest import Manifest, is_artifact
from emb.errors import UsageError
from emb.files import atomic_folder, refuse_existing
from emb.runtime.encoder import ArtifactEncoder, Encoder, load
from emb.search.bundling.space import check_space
from emb.teachers.locate import locate
from emb.teachers.registry import remembered

_Named = tuple[str, Path]  # what a model is called, and where it lies


def write_bundle(
    query: str | Path,
    document: str | Path | None,
    out: Path | None,
    *,
    files: tuple[str | None, str | None],
    copy: bool,
    router: bool,
    overwrite: bool,
    trust_remote_code: bool,
) -> Path:
    """`emb.bundle`, which describes the arguments."""
    queries = locate(query, trust_remote_code=trust_remote_code)
    documents = _teacher_of(*queries) if document is None else locate(document, trust_remote_code=trust_remote_code)
    place = out or Path("bundles") / queries[0]
    refuse_existing(place, overwrite)
    encoders = [
        load(folder, file=file, trust_remote_code=trust_remote_code)
        for (_, folder), file in zip((queries, documents), files, strict=True)
    ]
    space = check_space(encoders[0], encoders[1], (queries[1], documents[1]))
    with atomic_folder(place, replace=overwrite) as folder:
        shutil.copytree(queries[1], folder / QUERY, ignore=_hidden)
        if copy:
            shutil.copytree(documents[1], folder / DOCUMENT, ignore=_hidden)
        if router:
            from emb.search.bundling.router import write_router

            write_router((queries[1], documents[1]), encoders[0].dim, folder / ROUTER, trust_remote_code)
        inside = DOCUMENT if copy else str(documents[1].resolve())
        Bundle(
            _record(queries, QUERY, encoders[0]),
            _record(documents, inside, encoders[1]),
            encoders[0].dim,
            encoders[0].normalize,
            encoders[0].similarity_fn_name,
            space,
        ).save(folder)
    return place


def _teacher_of(name: str, folder: Path) -> _Named:
    """The model that a query encoder was distilled from, where it is on this machine.

    Raises:
        UsageError: it is not, or none is named.
    """
    teacher: TeacherRecord | None = Manifest.load(folder).lineage.teacher if is_artifact(folder) else None
    for found in remembered(teacher, folder) if teacher else ():
        return found.name, found.path
    known = f"its teacher {teacher.name} is not on this machine" if teacher else "names no teacher"
    raise UsageError(f"{name}: {known}", "give the documents' model: --doc PATH")


def _record(named: _Named, path: str, encoder: Encoder) -> EncoderRecord:
    file = encoder.variant.file if isinstance(encoder, ArtifactEncoder) else None
    return EncoderRecord(named[0], path, fingerprint(named[1], file), file, encoder.dim)


def _hidden(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".")]
