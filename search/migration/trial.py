"""What a search keeps when old vectors stand for new ones: every map tried on documents that it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.data.evaluation_sets import DEPTH, RetrievalTask
from emb.search.migration.maps import AS_THEY_ARE, LinearMap, Moments, as_they_are, fit_maps
from emb.similarity import Vectors, unit

FOLDS = 5
_FIRST = 10
Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Trial:
    """Pieces of documents by both encoders, and queries by the new one.

    Attributes:
        old, new: vectors `(pieces, old dim)` and `(pieces, new dim)`.
        owner: the document `(pieces,)` of each, rows from 0, ascending.
        queries: vectors `(queries, new dim)`.
        relevant: grades by document for each query.
        length_one: whether new vectors are compared by their directions.
    """

    old: Vectors
    new: Vectors
    owner: Rows
    queries: Vectors
    relevant: Sequence[Mapping[int, int]]
    length_one: bool

    @property
    def documents(self) -> int:
        """How many there are."""
        return int(self.owner[-1]) + 1


@dataclass(frozen=True)
class Way:
    """One way of searching with new queries.

    Attributes:
        name: of the map, or "re-encoded".
        overlap: mean share of the ten documents found with new vectors that it finds too.
        ndcg: nDCG@10 × 100.
        kept: the share of the nDCG with new vectors.
        cosine: mean cosine of what it takes for a new vector and that.
    """

    name: str
    overlap: float
    ndcg: float
    kept: float
    cosine: float


def tried(trial: Trial) -> list[Way]:
    """New vectors first, then every candidate: documents of a part by the map that was fitted to the other parts."""
    task, truth = _task(trial), _ranked(trial, trial.new)
    best = task.score_rankings(truth)
    ways = [Way("re-encoded", 1.0, best, 1.0, 1.0)]
    for name, vectors in _held_out(trial).items():
        found = _ranked(trial, vectors)
        score = task.score_rankings(found)
        close = float((unit(vectors) * unit(trial.new)).sum(axis=1).mean())
        ways.append(Way(name, _overlap(truth, found), score, score / best if best else 0.0, close))
    return ways


def fitted(trial: Trial, name: str) -> LinearMap:
    """The map of that name, fitted to all documents."""
    if name == AS_THEY_ARE:
        return as_they_are(trial.new.shape[1], trial.old.shape[1])
    return next(each for each in fit_maps(Moments.of(trial.old, trial.new)) if each.kind == name)


def _held_out(trial: Trial) -> dict[str, Vectors]:
    """By candidate, what it takes for the new vectors `(pieces, new dim)`."""
    part = trial.owner % FOLDS
    moments = [Moments.of(trial.old[part == each], trial.new[part == each]) for each in range(FOLDS)]
    whole = sum(moments[1:], moments[0])
    found: dict[str, Vectors] = {}
    for each in range(FOLDS):
        rows = part == each
        for candidate in fit_maps(whole - moments[each]):
            vectors = found.setdefault(candidate.kind, np.empty(trial.new.shape, np.float32))
            vectors[rows] = candidate.apply(trial.old[rows])
    return {name: unit(each) if trial.length_one else each for name, each in found.items()}


def _ranked(trial: Trial, vectors: Vectors) -> list[Rows]:
    """The best documents of each query by their best pieces, equal ones in order."""
    first = np.flatnonzero(np.diff(trial.owner, prepend=-1))
    documents = vectors.astype(np.float64).T
    scores = [np.maximum.reduceat((query @ documents).astype(np.float32), first) for query in trial.queries]
    return [np.argsort(-each, kind="stable")[:DEPTH] for each in scores]


def _task(trial: Trial) -> RetrievalTask:
    names = [str(row) for row in range(trial.documents)]
    relevant = {
        str(row): {str(document): grade for document, grade in graded.items()}
        for row, graded in enumerate(trial.relevant)
    }
    return RetrievalTask("sample", dict.fromkeys(relevant, " "), dict.fromkeys(names, ""), relevant)


def _overlap(truth: Sequence[Rows], found: Sequence[Rows]) -> float:
    pairs = zip(truth, found, strict=True)
    return float(np.mean([len(np.intersect1d(a[:_FIRST], b[:_FIRST])) / len(a[:_FIRST]) for a, b in pairs]))
