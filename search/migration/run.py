"""One call of `emb migrate`: look, begin, go on, finish or undo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emb.errors import ArtifactError, EmbError, UsageError
from emb.progress import note
from emb.runtime.encoder import Encoder
from emb.search.index.build import Built
from emb.search.index.description import Description, EncoderRecord, Layout
from emb.search.index.moving import Moving
from emb.search.index.reader import Index
from emb.search.index.run import record_of
from emb.search.migration import Migrated
from emb.search.migration.check import Check, Checked, check
from emb.search.migration.end import finish, left, undo
from emb.search.migration.learned_map import require_directions
from emb.search.migration.move import re_encode, require_same, require_same_dim, start, with_lock
from emb.search.migration.remembering import Remembering
from emb.search.migration.trial import Way
from emb.search.sides import document_encoder, document_folder, query_encoder, query_folder, shared_dim


@dataclass(frozen=True)
class Wanted:
    """What a call asks for: the models, what is looked at, dims to keep, and how the encoders are opened."""

    to: str | Path | None = None
    query: str | Path | None = None
    old: str | Path | None = None
    data: str | Path | None = None
    sample: int = 2000
    seed: int = 0
    dim: int | None = None
    cached: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """The new encoders, opened, and what an index notes of that of documents; `old` is the query encoder so far, where
    one is named, and its folder.
    """

    document: Encoder
    query: Encoder
    record: EncoderRecord
    model: Path
    old: Encoder | None = None
    old_folder: Path | None = None


def run(root: Path, wanted: Wanted, *, look: bool, end: bool, back: bool) -> Migrated:
    """`emb.migrate`, which describes the arguments."""
    Description.load(root)
    if look + end + back > 1:
        raise UsageError("--check, --finish and --undo: three different things", "choose one of them")
    if (end or back) and wanted.to is not None:
        raise UsageError(
            f"--to {wanted.to}: --finish and --undo are of the migration under way", "leave out one of the two"
        )
    if (end or back) and wanted.old is not None:
        raise UsageError(f"--old {wanted.old}: a map is made where a migration begins", "leave it out")
    if back:
        with_lock(root, lambda: undo(root))
        return Migrated(root, "undone", None, _documents(root), 0, 0)
    if end:
        ended = with_lock(root, lambda: finish(root))
        return Migrated(root, "finished", check_of(ended), _documents(root), 0, 0)
    moving = Moving.load(root)
    if moving is not None and wanted.old is not None and not look:
        note(f"--old {wanted.old}: the migration under way keeps the map that it was begun with")
        wanted = replace(wanted, old=None)
    models = _models(wanted, moving)
    if look:
        return Migrated(root, "checked", check_with(root, wanted, models).check, _documents(root), 0, 0)
    return move_with(root, wanted, models)


def move_with(root: Path, wanted: Wanted, models: Models) -> Migrated:
    """Begin to move the index at `root` to encoders that are loaded, or go on with it.

    Raises:
        UsageError: a migration to another model or other dims is under way, or the documents are encoded by this one
            already.
        ArtifactError: another process is migrating it.
    """
    return with_lock(root, lambda: _move(root, wanted, models))


def check_of(moving: Moving) -> Check:
    """What was found before a migration began."""
    value = dict(moving.check)
    return Check(**value | {"ways": [Way(**way) for way in value["ways"]]})


def _move(root: Path, wanted: Wanted, models: Models) -> Migrated:
    moving = Moving.load(root)
    if moving is not None:
        known = Description.load(root / moving.at)
        require_same(moving, known.encoder.fingerprint, models.record.fingerprint, models.record.name)
        require_same_dim(known.space.dim, wanted.dim)
        return _moved(root, moving, re_encode(root, moving, models.document))
    if models.record.fingerprint == Description.load(root).encoder.fingerprint:
        raise UsageError(
            f"{root}: its documents are encoded by {models.record.name} already",
            "search with it, or with a student of it",
        )
    checked = check_with(root, wanted, models)
    with Index(root) as index:
        moving = start(index, root, _description(root, wanted, models), str(wanted.to), checked)
    encoder = Remembering(models.document, checked.sample.texts, checked.encoded)
    return _moved(root, moving, re_encode(root, moving, encoder, checked.sample.entries))


def _moved(root: Path, moving: Moving, built: Built) -> Migrated:
    return Migrated(root, "moved", check_of(moving), _documents(root), left(root, moving), built.truncated)


def check_with(root: Path, wanted: Wanted, models: Models) -> Checked:
    """What the vectors of the index at `root` are worth with encoders that are loaded; nothing is changed.

    Raises:
        DataError: too few documents to look at.
        UsageError: dims that the new encoders do not have.
        ArtifactError: a query encoder so far that is not the index's.
    """
    encoders = (models.document, models.query)
    with _opened(root, models) as index:
        description = _description(root, wanted, models)
        if models.old is not None:
            require_directions(index.description, description)
        return check(
            index, description, encoders, models.model, data=wanted.data, count=wanted.sample, seed=wanted.seed
        )


def _opened(root: Path, models: Models) -> Index:
    try:
        return Index(root, models.old, model=models.old_folder)
    except ArtifactError as error:
        if models.old is None:
            raise
        encoder = Description.load(root).encoder.name
        raise ArtifactError(f"--old: {error.message}", f"name {encoder}, or a bundle or a student of it") from error


def _models(wanted: Wanted, moving: Moving | None) -> Models:
    to = wanted.to or (moving.to if moving else None)
    if to is None:
        raise UsageError("no model to move to", "name one with --to MODEL")
    query = wanted.query or to
    document = document_encoder(to, cached=wanted.cached, **wanted.options)
    record = record_of(document, document_folder(to))
    options = {"cached": wanted.cached, **wanted.options}
    return Models(document, query_encoder(query, **options), record, Path(query), *_former(wanted.old, options))


def _former(old: str | Path | None, options: Mapping[str, Any]) -> tuple[Encoder | None, Path | None]:
    if old is None:
        return None, None
    try:
        return query_encoder(old, **options), query_folder(old)
    except EmbError as error:
        raise UsageError(f"--old {old}: {error.message}", error.hint) from error


def _description(root: Path, wanted: Wanted, models: Models) -> Description:
    """Of the new index: stored as the old one is.

    Raises:
        UsageError: more dims than the new encoders have.
    """
    known: Layout = Description.load(root).layout
    dim = wanted.dim or known.dim or (wanted.to and shared_dim(wanted.to)) or None
    most = models.record.dim if known.rotate else min(models.record.dim, models.query.dim)
    if dim is not None and dim > most:
        raise UsageError(f"--dim {dim}: the new encoder has {most}", "choose as many or fewer with --dim")
    if models.query.dim < (models.record.dim if known.rotate or dim is None else dim):
        raise UsageError(
            f"queries have {models.query.dim} dims, documents {models.record.dim}",
            f"keep {models.query.dim} with --dim, in an index without --rotate",
        )
    plain = Description(models.record, replace(known, dim=dim, learn_cut=False))
    cuts = plain.space.dim < models.record.dim and plain.space.length_one
    return replace(plain, layout=replace(plain.layout, learn_cut=known.learn_cut and cuts))


def _documents(root: Path) -> int:
    with Index(root) as index:
        return len(index)
