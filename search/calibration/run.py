"""Calibrating an encoder: read, encode, judge, fit, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emb.artifact.bundle import Bundle, is_bundle
from emb.artifact.fingerprints import fingerprint
from emb.artifact.signature import is_signed
from emb.errors import UsageError
from emb.progress import note, warn
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import ArtifactEncoder, Encoder, load
from emb.search.bundling.space import check_space
from emb.search.calibration.apply import Calibration, Side
from emb.search.calibration.choose import choose_map
from emb.search.calibration.doubt import noted
from emb.search.calibration.judged import Asked, judged_by_model, read_asked
from emb.search.calibration.pairs import Pairs, pair_up
from emb.search.sides import teacher_of
from emb.similarity import Vectors, truncated
from emb.teachers.registry import resolve


@dataclass(frozen=True)
class _Encoders:
    """Both encoders, and who they are."""

    query: Encoder
    document: Encoder
    sides: tuple[Side, Side]


def run(
    folder: Path,
    data: Sequence[str],
    doc: str | None,
    *,
    split: str | None,
    most: tuple[int, int],
    seed: int,
    **options: Any,
) -> Calibration:
    """`emb.calibrate`, which describes the arguments."""
    asked = read_asked(data, split, most, seed)
    encoders = _of_bundle(folder, doc, options) if is_bundle(folder) else _of_two(folder, doc, options)
    pairs = _pairs(encoders, asked)
    note(f"fitting to {len(pairs):,} queries")
    chosen = choose_map(pairs)
    found = Calibration(
        chosen.kind,
        chosen.map,
        *encoders.sides,
        encoders.query.dim,
        asked.name,
        asked.judged,
        len(asked.queries),
        len(asked.documents),
        seed,
        chosen.figures,
        chosen.thresholds,
        noted(pairs.scores),
    )
    found.save(folder)
    if is_signed(folder):
        warn(f"{folder}: its signature is of the files before; sign it again: emb sign {folder} --key KEY")
    return found


def _of_bundle(folder: Path, doc: str | None, options: dict[str, Any]) -> _Encoders:
    if doc is not None:
        raise UsageError(f"--doc {doc}: a bundle has its own documents' model", "leave --doc out")
    found, record = load(folder, **options), Bundle.load(folder)
    assert isinstance(found, BundleEncoder)
    sides = tuple(Side(each.name, each.fingerprint, each.file) for each in (record.query, record.document))
    return _Encoders(found.query, found.document, (sides[0], sides[1]))


def _of_two(folder: Path, doc: str | None, options: dict[str, Any]) -> _Encoders:
    query = load(folder, **options)  # first: where nothing is, nothing else is worth saying
    name, path = _documents(folder, doc, options["trust_remote_code"])
    document = load(path, **options)
    check_space(query, document, (folder, path))
    return _Encoders(query, document, (_side(folder.name, folder, query), _side(name, path, document)))


def _documents(folder: Path, doc: str | None, trust_remote_code: bool) -> tuple[str, Path]:
    if doc is not None:
        found = resolve(doc, trust_remote_code=trust_remote_code)
        return found.name, found.path
    return teacher_of(str(folder), folder)


def _side(name: str, folder: Path, encoder: Encoder) -> Side:
    file = encoder.variant.file if isinstance(encoder, ArtifactEncoder) else None
    return Side(name, fingerprint(folder, file), file)


def _pairs(encoders: _Encoders, asked: Asked) -> Pairs:
    query, document = encoders.query, encoders.document
    note(f"{encoders.sides[1].name}: {len(asked.documents):,} documents")
    whole = document.encode(asked.documents, kind="document", show_progress_bar=True)
    relevant = asked.relevant
    if not asked.judged:
        theirs = document.encode(asked.queries, kind="query")
        relevant = judged_by_model(theirs, whole, relevant, document.similarity_fn_name)
    ours = query.encode(asked.queries, kind="query")
    return pair_up(asked.queries, ours, _cut(whole, query), relevant, query.similarity_fn_name)


def _cut(vectors: Vectors, query: Encoder) -> Vectors:
    return truncated(vectors, query.dim) if query.normalize else vectors[:, : query.dim]
