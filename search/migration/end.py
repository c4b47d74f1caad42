"""How a migration ends: the new index takes the old one's place, or goes as if it had never been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from emb.errors import ArtifactError, UsageError
from emb.search.index import build
from emb.search.index.catalogue import FILE as SQLITE
from emb.search.index.catalogue import Catalogue
from emb.search.index.description import home, settle_in
from emb.search.index.mixed import PAIRS
from emb.search.index.moving import FILE, Moving
from emb.search.index.segments import FOLDER as SEGMENTS

_NOTHING = "no migration is under way"
_BEGIN = "begin one: emb migrate INDEX --to MODEL"


def left(root: Path, moving: Moving) -> int:
    """Documents of the old index that are not in the new one yet, as they are."""
    with closing(Catalogue(home(root), write=False)) as catalogue:
        catalogue.attach(root / moving.at, "moved")
        with catalogue.reading() as sql:
            [total] = sql.execute("SELECT count(*) FROM documents").fetchone()
            return int(total) - len(sql.execute(PAIRS).fetchall())


def finish(root: Path) -> Moving:
    """Let the new index be the index, and remove the old one; both locks are held.

    Raises:
        UsageError: no migration is under way.
        ArtifactError: documents are still on their way.
    """
    moving = Moving.load(root)
    if moving is None:
        tidy(root)  # what a kill right after finishing left
        raise UsageError(f"{root}: {_NOTHING}", _BEGIN)

    def end() -> None:
        waiting = left(root, moving)
        if waiting or _unsettled(root, moving):
            raise ArtifactError(
                f"{root}: {waiting:,} documents are not encoded by the new model, or not stored yet",
                f"go on first: emb migrate {root}",
            )
        settle_in(root, moving.at)
        tidy(root)

    build.with_lock(root, end)
    return moving


def undo(root: Path) -> None:
    """Remove the new index; the old one is as if nothing had been. The lock is held.

    Raises:
        UsageError: no migration is under way, or it is finished.
    """
    if not (root / FILE).is_file() or _finished(root):
        raise UsageError(f"{root}: {_NOTHING}; a finished one cannot be undone", _BEGIN)
    (root / FILE).unlink()
    tidy(root)


def tidy(root: Path) -> None:
    """Remove what counts no more: of a migration that was undone or finished, or killed before it began."""
    place = home(root)
    if _finished(root):
        (root / FILE).unlink()
    for path in root.glob(".*.partial"):  # of a kill while one of the two files was written
        path.unlink(missing_ok=True)
    under_way = _named(root)
    for path in _others(root, place):
        if path.name != under_way:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if place != root:
        for path in (*place.glob("lengths-*.npy"), place / "map.npy"):
            path.unlink(missing_ok=True)


def _others(root: Path, place: Path) -> Iterator[Path]:
    """Files and folders of indexes other than that in `place`."""
    yield from (path for path in root.glob("space-*") if path != place)
    if place != root:
        yield from (path for path in (root / SEGMENTS, root / SQLITE, *root.glob("fitted-*")) if path.exists())


def _unsettled(root: Path, moving: Moving) -> bool:
    """Whether the new index holds more than the old one, or vectors that are not stored yet."""
    with closing(Catalogue(root / moving.at, write=False)) as new, closing(Catalogue(home(root), write=False)) as old:
        with new.reading() as moved, old.reading() as kept:
            counts = [sql.execute("SELECT count(*) FROM documents").fetchone()[0] for sql in (moved, kept)]
            raw = moved.execute("SELECT count(*) FROM segments WHERE raw").fetchone()[0]
    return bool(raw) or counts[0] != counts[1]


def _finished(root: Path) -> bool:
    """Whether the migration that `migration.json` names is finished, and the file only left of it."""
    return (root / FILE).is_file() and home(root) != root and home(root).name == _named(root)


def _named(root: Path) -> str | None:
    """The folder of the migration under way, read even if the file was changed by hand."""
    try:
        return str(json.loads((root / FILE).read_text(encoding="utf-8"))["at"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
