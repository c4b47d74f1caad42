"""Documents on their way to the new encoder: a new index inside of the old one, filled block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from emb.errors import ArtifactError, UsageError
from emb.locks import locked
from emb.runtime.encoder import Encoder
from emb.search.index import build, checksums
from emb.search.index.build import Built, begin, put_in
from emb.search.index.catalogue import Catalogue
from emb.search.index.description import Description, home
from emb.search.index.documents import Entry
from emb.search.index.lengths import write_lengths
from emb.search.index.moving import Moving, save_matrix
from emb.search.index.reader import Index
from emb.search.migration.check import Checked
from emb.search.migration.end import tidy
from emb.search.migration.sample import entry_of

LOCK = ".migration.lock"  # another than that of `emb index`, which goes on meanwhile
_T = TypeVar("_T")


def with_lock(folder: Path, work: Callable[[], _T]) -> _T:
    """Do `work` as the only migration of an index.

    Raises:
        ArtifactError: another process is migrating it.
    """

    def busy() -> None:
        raise ArtifactError(f"{folder}: another process is migrating this index", "wait for it, or stop it")

    with locked(folder / LOCK, busy):
        return work()


def start(index: Index, root: Path, description: Description, to: str, checked: Checked) -> Moving:
    """Begin the new index, with what searches it meanwhile; it counts once all of that is on the disk.

    Raises:
        UsageError: a layout that does not go with the new encoder.
        DiskError: no room; the old index is as it was.
    """
    tidy(root)
    number = int(home(root).name.rpartition("-")[2]) + 1 if home(root) != root else 1
    inside = root / f"space-{number}"
    begin(inside, description.encoder, description.layout)
    digest, sealed = None, dict[Path, str]()
    if checked.map is not None:
        digest = save_matrix(checked.map.matrix, inside)
        if description.space.length_one:
            sealed = write_lengths(index.snapshot().segments, checked.map.matrix, inside)
    with closing(Catalogue(inside, write=True)) as catalogue, catalogue.writing() as sql:
        for path, file_digest in sealed.items():
            checksums.put(sql, path, file_digest)
    moving = Moving(inside.name, to, digest, list(checked.level), asdict(checked.check))
    moving.save(root)
    return moving


def re_encode(root: Path, moving: Moving, encoder: Encoder, first: Sequence[Entry] = ()) -> Built:
    """Encode what is not in the new index yet, the documents of `first` before all others.

    Every block counts once it is committed; stopped at any moment, the same call goes on behind the last one.

    Raises:
        NotFiniteError: a vector that is not finite; its document is named.
        DiskError: no room; what was committed is kept.
    """
    inside, old = root / moving.at, home(root)
    description = Description.load(inside)
    with closing(Catalogue(old, write=False)) as documents:
        documents.attach(inside, "moved")
        with documents.reading() as sql:
            [total] = sql.execute("SELECT count(*) FROM documents").fetchone()
            gone = sql.execute("SELECT id FROM moved.documents WHERE id NOT IN (SELECT id FROM main.documents)")
            deleted = [name for (name,) in gone]
    return build.with_lock(inside, lambda: put_in(inside, description, encoder, _entries(old, first), total, deleted))


def require_same(moving: Moving, known: str, given: str, name: str) -> None:
    """Hold the encoder that is named against the one that a migration under way is to.

    Raises:
        UsageError: another one; fingerprints are compared.
    """
    if known != given:
        raise UsageError(
            f"--to {name}: a migration to another model ({moving.to}) is under way",
            "go on with that one, or give it up first: emb migrate INDEX --undo",
        )


def require_same_dim(known: int, given: int | None) -> None:
    """Hold the dims that are asked for, if any are, against those that a migration under way keeps.

    Raises:
        UsageError: others.
    """
    if given not in (None, known):
        raise UsageError(
            f"dim {given}: the migration under way keeps {known}",
            "leave it out, or give that one up first: emb migrate INDEX --undo",
        )


def _entries(old: Path, first: Sequence[Entry]) -> Iterator[Entry]:
    """Every document of the old index, a block in each reading: who writes meanwhile waits for no longer."""
    yield from first
    done, last = {entry.id for entry in first}, 0
    with closing(Catalogue(old, write=False)) as catalogue:
        while True:
            with catalogue.reading() as sql:
                rows = sql.execute(
                    "SELECT key, id, title, text, facts FROM documents WHERE key > ? ORDER BY key LIMIT ?",
                    (last, build.BLOCK),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from (entry_of(*row) for _, *row in rows if row[0] not in done)
