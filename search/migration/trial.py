"""What a search keeps when old vectors stand for new ones: every map tried on documents that it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.data.evaluation_sets import DEPTH, RetrievalTask
from emb.search.migration.maps import AS_THEY_ARE, LinearMap, Moments, as_they_are, fit_maps
from emb.similarity import Vectors, dots, unit

FOLDS = 5
_FIRST = 10
Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Trial:
    """Pieces of documents by both encoders, or behind those by the old one alone, and queries by the new one.

    Documents of which there is no new vector stand in the way of the right ones, as all of the index will.

    Attributes:
        old: vectors `(pieces, old dim)`.
        new: vectors `(first pieces, new dim)` of whole documents.
        owner: the document `(pieces,)` of each, rows from 0, ascending.
        queries: vectors `(queries, new dim)`.
        relevant: grades by document for each query: what people `judged`, or the document that it was cut from. Where
            nobody did, gains are the new encoder's own scores.
        length_one: whether new vectors are compared by their directions.
        learned: a map that was fitted to no document's new vector, or None.
    """

    old: Vectors
    new: Vectors
    owner: Rows
    queries: Vectors
    relevant: Sequence[Mapping[int, int]]
    judged: bool
    length_one: bool
    learned: LinearMap | None = None

    @property
    def documents(self) -> int:
        """How many there are."""
        return int(self.owner[-1]) + 1

    @property
    def both(self) -> int:
        """How many of them, the first ones, have new vectors."""
        return int(self.owner[len(self.new) - 1]) + 1


@dataclass(frozen=True)
class Way:
    """One way of searching with new queries.

    Attributes:
        name: of the map, or "re-encoded".
        overlap: mean share of the ten documents found with new vectors that it finds too.
        ndcg: nDCG@10 × 100; where nobody judged, a gain is how far the score of the new vector lies above the mean
            of all documents.
        kept: the share of the nDCG with new vectors.
        cosine: mean cosine of what it takes for a new vector and that.
        level: scale and shift that bring its scores to the height of those of new vectors.
        known: the share of the nDCG with new vectors by relevant documents alone; where people judged, as `kept`.
    """

    name: str
    overlap: float
    ndcg: float
    kept: float
    cosine: float
    level: Sequence[float] = (1.0, 0.0)
    known: float = 0.0


def tried(trial: Trial) -> list[Way]:
    """New vectors first, then every candidate: documents of a part by the map that was fitted to the other parts.

    With new vectors, documents that have none yet stand where the best candidate puts them: without them the right
    documents would have few rivals, and every map would look better than it is.
    """
    held_out, known = _held_out(trial), trial.both
    scores = {name: _scores(trial, vectors) for name, vectors in held_out.items()}
    new = _scores(trial, trial.new)
    levels = {name: _level(new, found[:, :known]) for name, found in scores.items()}
    best = max(scores, key=lambda name: _overlap(_ranked(new), _ranked(scores[name][:, :known])))
    scale, shift = levels[best]
    truth = np.concatenate([new, scale * scores[best][:, known:] + shift], axis=1)
    most, all_known = _ndcg(trial, truth, truth), _known(trial, truth)
    ways = [Way("re-encoded", 1.0, most, 1.0, 1.0, known=1.0)]
    for name, found in scores.items():
        score = _ndcg(trial, truth, found)
        close = float((unit(held_out[name][: len(trial.new)]) * unit(trial.new)).sum(axis=1).mean())
        shares = (_overlap(_ranked(truth), _ranked(found)), score, _part(score, most), close)
        ways.append(Way(name, *shares, levels[name], _part(_known(trial, found), all_known)))
    return ways


def fitted(trial: Trial, name: str) -> LinearMap:
    """The map of that name, fitted to all documents."""
    if name == AS_THEY_ARE:
        return as_they_are(trial.new.shape[1], trial.old.shape[1])
    if trial.learned is not None and trial.learned.kind == name:
        return trial.learned
    moments = Moments.of(trial.old[: len(trial.new)], trial.new)
    return next(each for each in fit_maps(moments) if each.kind == name)


def _held_out(trial: Trial) -> dict[str, Vectors]:
    """By candidate, what it takes for the new vectors `(pieces, new dim)`; documents without new ones are seen by no
    map, and go through that of all the others.
    """
    known, shape = len(trial.new), (len(trial.old), trial.new.shape[1])
    part = np.where(np.arange(len(trial.old)) < known, trial.owner % FOLDS, FOLDS)
    moments = [Moments.of(trial.old[part == each], trial.new[part[:known] == each]) for each in range(FOLDS)]
    whole = sum(moments[1:], moments[0])
    found: dict[str, Vectors] = {}
    for each in range(FOLDS + 1):
        rows = part == each
        for candidate in fit_maps(whole - moments[each] if each < FOLDS else whole):
            vectors = found.setdefault(candidate.kind, np.empty(shape, np.float32))
            vectors[rows] = candidate.apply(trial.old[rows])
    if trial.learned is not None:
        found[trial.learned.kind] = trial.learned.apply(trial.old)
    return {name: unit(each) if trial.length_one else each for name, each in found.items()}


def _scores(trial: Trial, vectors: Vectors) -> Vectors:
    """Scores `(queries, documents)` of the first documents, whose pieces have these vectors, by their best ones."""
    first = np.flatnonzero(np.diff(trial.owner[: len(vectors)], prepend=-1))
    return np.maximum.reduceat(dots(trial.queries, vectors), first, axis=1)


def _ranked(scores: Vectors) -> Rows:
    """The best documents `(queries, at most 11)` of each query, equal ones in order."""
    return np.asarray(np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH])


def _level(truth: Vectors, found: Vectors) -> tuple[float, float]:
    """Scale and shift that give the mean of the best ten, and that of all, the height that they have with new vectors:
    so a document on its way comes before one that is there as often as if it were there too.
    """
    best = [np.sort(scores, axis=1)[:, -_FIRST:].mean() for scores in (truth, found)]
    scale = (best[0] - truth.mean()) / max(best[1] - found.mean(), 1e-6)
    return float(scale), float(best[0] - scale * best[1])


def _ndcg(trial: Trial, truth: Vectors, found: Vectors) -> float:
    if trial.judged:
        return _known(trial, found)
    ranking = _ranked(found)
    gains = np.maximum(truth - truth.mean(axis=1, keepdims=True), 0)
    reached, most = (_discounted(gains, rows) for rows in (ranking, _ranked(truth)))
    return 100 * float(np.mean(reached / np.maximum(most, 1e-12)))


def _known(trial: Trial, found: Vectors) -> float:
    return _task(trial.documents, trial.relevant).score_rankings(_ranked(found))


def _part(score: float, most: float) -> float:
    return score / most if most else 0.0


def _discounted(gains: Vectors, ranking: Rows) -> Vectors:
    first = np.take_along_axis(gains, ranking[:, :_FIRST], axis=1)
    return np.asarray((first / np.log2(np.arange(2, first.shape[1] + 2))).sum(axis=1))


def _task(documents: int, grades: Sequence[Mapping[int, int]]) -> RetrievalTask:
    names = [str(row) for row in range(documents)]
    relevant = {
        str(row): {str(document): grade for document, grade in graded.items()} for row, graded in enumerate(grades)
    }
    return RetrievalTask("sample", dict.fromkeys(relevant, " "), dict.fromkeys(names, ""), relevant)


def _overlap(truth: Rows, found: Rows) -> float:
    pairs = zip(truth, found, strict=True)
    return float(np.mean([len(np.intersect1d(a[:_FIRST], b[:_FIRST])) / len(a[:_FIRST]) for a, b in pairs]))
