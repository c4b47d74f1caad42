"""Writing a bundle: find both models, check that they share a space, put them together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from emb.artifact.bundle import DOCUMENT, QUERY, ROUTER, Bundle, EncoderRecord
from emb.artifact.fingerprints import fingerprint
from emb.files import atomic_folder, refuse_existing
from emb.runtime.encoder import ArtifactEncoder, Encoder, load
from emb.search.bundling.documents import Trial, documents_of
from emb.search.sides import teacher_of
from emb.teachers.locate import locate

_Named = tuple[str, Path]  # what a model is called, and where it lies


def write_bundle(
    query: str | Path,
    document: str | Path | None,
    out: Path | None,
    *,
    files: tuple[str | None, str | None],
    trial: Trial,
    threads: int | None,
    copy: bool,
    router: bool,
    overwrite: bool,
    trust_remote_code: bool,
) -> Path:
    """`emb.bundle`, which describes the arguments."""
    trial.require(files[1])
    queries = locate(query, trust_remote_code=trust_remote_code)
    documents = teacher_of(*queries) if document is None else locate(document, trust_remote_code=trust_remote_code)
    place = out or Path("bundles") / queries[0]
    refuse_existing(place, overwrite)
    options: dict[str, Any] = {"threads": threads, "trust_remote_code": trust_remote_code}
    trial = replace(trial, exports=[locate(each, trust_remote_code=trust_remote_code)[1] for each in trial.exports])
    query_encoder = load(queries[1], file=files[0], **options)
    found = documents_of(query_encoder, queries[1], documents, files[1], trial, **options)
    taken = found.taken
    with atomic_folder(place, replace=overwrite) as folder:
        shutil.copytree(queries[1], folder / QUERY, ignore=_hidden)
        if copy:
            shutil.copytree(taken.folder, folder / DOCUMENT, ignore=_hidden)
        if router:
            from emb.search.bundling.router import write_router

            write_router((queries[1], taken.folder), (query_encoder, taken.encoder), folder / ROUTER, trust_remote_code)
        inside = DOCUMENT if copy else str(taken.folder.resolve())
        record = _record((taken.name, taken.folder), inside, taken.encoder)
        Bundle(
            _record(queries, QUERY, query_encoder),
            replace(record, dtype=record.dtype if record.file else taken.dtype),
            query_encoder.dim,
            query_encoder.normalize,
            query_encoder.similarity_fn_name,
            found.space,
            found.choice,
        ).save(folder)
    return place


def _record(named: _Named, path: str, encoder: Encoder) -> EncoderRecord:
    file = encoder.variant.file if isinstance(encoder, ArtifactEncoder) else None
    return EncoderRecord(named[0], path, fingerprint(named[1], file), file, encoder.dim)


def _hidden(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".")]
