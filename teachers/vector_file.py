"""A teacher that is a file of vectors, computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emb.data.corpus import Columns, read_source
from emb.data.vector_files import read_vectors
from emb.errors import DataError, TeacherError, UsageError
from emb.files import sha256_file
from emb.similarity import Vectors
from emb.teachers.protocol import TeacherIdentity

SUFFIXES = (".npy", ".parquet")


class VectorFileTeacher:
    """The vectors of a .npy file, in the order of one file of texts, or beside their texts in a Parquet file.

    Raises:
        DataError: a file that cannot be read, or not as many vectors as texts.
        UsageError: a .npy file without one file of texts.
    """

    def __init__(self, path: Path, sources: Sequence[str], columns: Columns, column: str = "vector") -> None:
        self.path = path
        self.vectors = read_vectors(path, column=column)
        texts = self._texts_of(sources)
        keys = [(item.kind, item.text.strip()) for item in read_source(texts, columns)]
        if len(keys) != len(self.vectors):
            raise DataError(
                f"{path}: {len(self.vectors):,} vectors, and {texts} has {len(keys):,} texts",
                "give the vectors of these texts, one each, in their order",
            )
        self.rows: dict[tuple[str, str], int] = {}
        for row, key in enumerate(keys):
            self.rows.setdefault(key, row)  # of a text that stands twice the first counts, as in a corpus
        parts = [
            sha256_file(path),
            "" if Path(texts) == path else sha256_file(Path(texts)),
            columns.text,
            columns.kind,
            column,
        ]
        self.identity = TeacherIdentity(f"vectors {' '.join(parts)}", 0, "any")
        self.dim = int(self.vectors.shape[1])
        self.normalized = bool(np.abs(np.linalg.norm(self.vectors, axis=1) - 1).max() < 1e-3)

    def _texts_of(self, sources: Sequence[str]) -> str:
        if self.path.suffix == ".parquet" and not sources:
            return str(self.path)
        if len(sources) != 1 or not Path(sources[0]).is_file():
            raise UsageError(
                f"{self.path}: whose vectors are these?",
                "name the one file of their texts, in the same order: --data FILE",
            )
        return sources[0]

    def prompt(self, kind: str) -> str:
        """None that is known: a text that is query and document may have two vectors."""
        return f"{kind}: "

    def embed(self, texts: Sequence[str], kind: str) -> Vectors:
        """Their rows.

        Raises:
            TeacherError: a text that the file has no vector of.
        """
        missing = next((text for text in texts if (kind, text) not in self.rows), None)
        if missing is not None:
            raise TeacherError(
                f"{self.path}: has no vector of the {kind} {missing[:80]!r}",
                "compute the vectors of all texts, or train on those of the file",
            )
        found: Vectors = self.vectors[[self.rows[kind, text] for text in texts]]
        return found
