"""A fitted relevance at run time: read, held against the encoder that it belongs to, applied. Numpy alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emb.artifact.bundle import Bundle, is_bundle
from emb.artifact.fingerprints import fingerprint
from emb.errors import ArtifactError, UsageError
from emb.files import read_json, write_json
from emb.search.calibration.features import DEPTH
from emb.search.calibration.figures import Figures, Threshold
from emb.search.calibration.maps import Map
from emb.similarity import Vectors

FILE = "calibration.json"
SCHEMA = 1
_AGAIN = "fit it again: emb calibrate FOLDER --data PATH"

Hit = TypeVar("Hit")


@dataclass(frozen=True)
class Side:
    """One encoder: its name, its fingerprint, and the file of an export that is used."""

    name: str
    fingerprint: str
    file: str | None = None


@dataclass(frozen=True)
class Calibration:
    """The content of `calibration.json`: one file, so that it is the old one or the new one.

    Attributes:
        kind: which candidate was kept.
        map: from similarity to relevance.
        query, document: whose vectors it is for, of `dim` numbers.
        data: what it was fitted to, with so many `queries` and `documents`, `judged` by people or by the documents'
            model.
        figures: of each candidate, on held-out queries; Platt's order is that of the similarity itself.
        thresholds: what hits of some relevance are, on held-out queries.
        gaps: between the first score and the tenth, below which 0, 5, … 100 % of the queries lie.
    """

    kind: str
    map: Map
    query: Side
    document: Side
    dim: int
    data: str
    judged: bool
    queries: int
    documents: int
    seed: int
    figures: dict[str, Figures]
    thresholds: Sequence[Threshold]
    gaps: tuple[float, ...] = ()

    @classmethod
    def load(cls, folder: str | Path) -> Calibration:
        """Read the calibration of the bundle or query encoder in `folder`.

        Raises:
            ArtifactError: there is none, it was changed by hand, or the encoder is no longer the one it was fitted
                to.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file", "fit one: emb calibrate FOLDER --data PATH")
        value = read_json(path)
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise ArtifactError(f"{path}: not a calibration of schema {SCHEMA}", _AGAIN)
        if value.get("digest") != _digest(value):
            raise ArtifactError(f"{path}: changed since it was written", _AGAIN)
        found = _typed(value)
        found.require(*_sides(Path(folder), found))
        return found

    def save(self, folder: Path) -> None:
        """Write `folder/calibration.json`, sealed."""
        content = {**dataclasses.asdict(self), "schema": SCHEMA}
        write_json(folder / FILE, {**content, "digest": _digest(content)})

    def require(self, query: str, document: str | None = None) -> None:
        """Check the fingerprints of the query encoder, and of what encoded the documents.

        Raises:
            ArtifactError: another encoder than the one it was fitted to.
        """
        for side, given, what in ((self.query, query, "queries"), (self.document, document, "documents")):
            if given is not None and given != side.fingerprint:
                raise ArtifactError(
                    f"the calibration is for {what} encoded by {side.name} ({side.fingerprint[:12]}), and these are by"
                    f" another encoder ({given[:12]})",
                    _AGAIN,
                )

    def relevance(self, query_vectors: Vectors, scores: Vectors) -> Vectors:
        """Relevance `(queries, hits)`, 0 to 1, of hits with `scores` `(queries, hits)`, for queries with vectors
        `(queries, dim)`; of each query, a higher score never has a lower relevance.

        A query's hits must begin with its best ten: what is asked for beyond them changes nothing.

        Raises:
            UsageError: other dims, not a row of scores for each query, or fewer than ten where there are more
                documents.
        """
        if query_vectors.ndim != 2 or query_vectors.shape[1] != self.dim:
            raise UsageError(
                f"query vectors of shape {query_vectors.shape}, the calibration is for {self.dim} dims",
                "encode queries with the encoder that was calibrated, all its dims",
            )
        if scores.ndim != 2 or len(scores) != len(query_vectors) or not scores.shape[1]:
            raise UsageError(
                f"scores of shape {scores.shape} for {len(query_vectors)} queries",
                "give a row of scores for each query",
            )
        if scores.shape[1] < min(DEPTH, self.documents):
            raise UsageError(
                f"{scores.shape[1]} hits of a query, its best {DEPTH} say how relevant they are",
                f"search for {DEPTH} hits or more, and cut afterwards",
            )
        return self.map.relevance(query_vectors, scores)


def relevant_hits(hits: Sequence[Hit], relevance: Vectors, min_relevance: float) -> list[tuple[Hit, float]]:
    """Those hits of one query, in order, whose `relevance` `(hits,)` is `min_relevance` or more, with it.

    Raises:
        UsageError: no share of 1.
    """
    if not 0 <= min_relevance <= 1:
        raise UsageError(f"--min-relevance {min_relevance:g}: not a relevance", "choose 0 to 1")
    pairs = zip(hits, map(float, relevance), strict=True)
    return [(hit, value) for hit, value in pairs if value >= min_relevance]


def _typed(value: dict[str, Any]) -> Calibration:
    read = {key: value[key] for key in value.keys() - {"schema", "digest"}}
    read["map"] = Map(**read["map"] | {"uses": tuple(read["map"]["uses"])})
    read["query"], read["document"] = Side(**read["query"]), Side(**read["document"])
    read["figures"] = {name: Figures(**each) for name, each in read["figures"].items()}
    read["thresholds"] = [Threshold(**each) for each in read["thresholds"]]
    read["gaps"] = tuple(read.get("gaps", ()))  # none, where an earlier version wrote it
    return Calibration(**read)


def _sides(folder: Path, found: Calibration) -> tuple[str, str | None]:
    """Fingerprints of what encodes queries, and documents if that is known, in `folder` now."""
    if is_bundle(folder):
        bundle = Bundle.load(folder)
        return bundle.query.fingerprint, bundle.document.fingerprint
    return fingerprint(folder, found.query.file), None


def _digest(content: dict[str, Any]) -> str:
    read = json.loads(json.dumps(content | {"digest": ""}))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
