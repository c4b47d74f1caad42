"""`migration.json`: an index that is on its way to another encoder.

The new index grows in a folder inside the old one, which nothing changes meanwhile. Removing this file undoes all of
it; naming that folder in `index.json` finishes it. A matrix stands for the documents that are not there yet: it takes a
query of the new space to the old vectors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ArtifactError
from emb.files import atomic_path, read_json, sha256_file, write_json
from emb.search.index.description import home
from emb.similarity import Vectors

FILE = "migration.json"
MAP = "map.npy"
SCHEMA = 1
_UNDO = "give it up, which leaves the old index as it was: emb migrate INDEX --undo"


@dataclass(frozen=True)
class Moving:
    """The content of `migration.json`.

    Attributes:
        at: folder of the new index, inside the old one.
        to: the model that documents move to, as it was named.
        map: sha256 of the matrix's file, or None where no map keeps enough of a search.
        level: scale and shift of mapped scores, which bring them to the height of those of new vectors.
        check: what was found before it began.
    """

    at: str
    to: str
    map: str | None
    level: list[float]
    check: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Moving | None:
        """What is under way in the index of `folder`; None if nothing is.

        Raises:
            ArtifactError: of another version, or changed by hand.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        value = read_json(path)
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise ArtifactError(f"{path}: not a migration of version {SCHEMA}", _UNDO)
        if value.get("digest") != _digest(value):
            raise ArtifactError(f"{path}: changed since it was written", _UNDO)
        found = cls(**{name: value[name] for name in ("at", "to", "map", "level", "check")})
        return None if home(folder) == folder / found.at else found

    def save(self, folder: Path) -> None:
        """Write `folder/migration.json`, sealed: from then on the migration is under way."""
        content = {**dataclasses.asdict(self), "schema": SCHEMA}
        write_json(folder / FILE, {**content, "digest": _digest(content)})

    def matrix(self, folder: Path) -> Vectors | None:
        """`(new dim, old dim + 1)`: a query `(new dim,)` times it is a query of the old vectors, and what to add to
        their scores; None where no map keeps enough.

        Raises:
            ArtifactError: the file is missing or has changed.
        """
        if self.map is None:
            return None
        path = folder / self.at / MAP
        if not path.is_file() or sha256_file(path) != self.map:
            raise ArtifactError(f"{path}: missing, or changed since it was written", _UNDO)
        return np.asarray(np.load(path, allow_pickle=False))


def save_matrix(matrix: Vectors, inside: Path) -> str:
    """Write the matrix into the new index's folder; return its hash."""
    with atomic_path(inside / MAP) as partial, partial.open("wb") as handle:
        np.save(handle, np.asarray(matrix, np.float32), allow_pickle=False)
    return sha256_file(inside / MAP)


def _digest(content: dict[str, Any]) -> str:
    read = json.loads(json.dumps(content | {"digest": ""}))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
