"""Who encodes the documents: the fastest whose vectors find what the documents' model itself finds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emb.artifact.bundle import ChoiceRecord, TriedEncoder
from emb.data.evaluation_sets import RetrievalTask
from emb.errors import UsageError
from emb.machine import processor
from emb.progress import bar, warn
from emb.runtime.encoder import Encoder
from emb.search.bundling.candidates import Candidate
from emb.search.bundling.ranking import FIRST, cut, nearest, overlap
from emb.similarity import Vectors, cosines

ROUNDS = 5
_LEVEL = 0.95  # of the fastest: closer than that, time is noise, and the one that loses less is taken
_FEW = 100  # documents
_POINTS = 1.0  # of nDCG@10 × 100 that may be lost
_ROUNDING = 1e-9  # of a cosine: that of a vector with itself may lie below 1


@dataclass(frozen=True)
class Limits:
    """What no document's cosine to the reference's vector may fall below, nor the share of the first ten."""

    min_cosine: float = 0.99
    min_overlap: float = 0.95


@dataclass(frozen=True)
class Measured:
    """Of one encoder: vectors `(documents, dim)`, cut as they are searched, and documents a second in each round."""

    vectors: Vectors
    speeds: Sequence[float]


def choose(
    query: Encoder, tried: Sequence[Candidate], task: RetrievalTask, limits: Limits, device: str, threads: int | None
) -> tuple[Candidate, ChoiceRecord]:
    """Measure all on the documents of `task`; return the one to take, and the record of the choice.

    The first of `tried` is the reference. Queries are encoded by `query`, which is what will ask.

    Raises:
        UsageError: too few documents for a first ten to differ.
    """
    _require_enough(len(task.documents))
    found = measure([each.encoder for each in tried], list(task.documents.values()), query)
    judge = _Judge(query, task, found[0].vectors, limits)
    record = ChoiceRecord(
        data=task.name,
        documents=len(task.documents),
        queries=len(task.queries),
        judged=bool(task.relevant),
        dim=query.dim,
        device=device,
        threads=threads,
        processor=processor(),
        min_cosine=limits.min_cosine,
        min_overlap=limits.min_overlap,
        spread=(min(found[0].speeds), max(found[0].speeds)),
        tried=decide([judge(*each) for each in zip(tried, found, strict=True)], limits),
    )
    return tried[record.tried.index(record.chosen)], record


def measure(encoders: Sequence[Encoder], documents: Sequence[str], query: Encoder) -> list[Measured]:
    """Encode all documents with each, a fifth at a time, taking turns: a machine that is busy for a while is so for
    all. Each fifth has documents of every length, and another encoder begins.
    """
    shares = _shares(documents)
    parts: list[list[Vectors]] = [[] for _ in encoders]
    speeds: list[list[float]] = [[] for _ in encoders]
    for each in encoders:
        each.encode(documents[:1], kind="document")  # the first call of a runtime takes longer
    with bar("measuring encoders", len(shares) * len(encoders)) as advance:
        for number, share in enumerate(shares):
            for turn in range(len(encoders)):
                row = (number + turn) % len(encoders)
                vectors, seconds = _timed(encoders[row], [documents[int(place)] for place in share])
                parts[row].append(cut(vectors, query.dim, query.normalize))
                speeds[row].append(len(share) / seconds)
                advance(1)
    places = np.argsort(np.concatenate(shares))
    return [Measured(np.concatenate(each)[places], speed) for each, speed in zip(parts, speeds, strict=True)]


def decide(tried: Sequence[TriedEncoder], limits: Limits) -> list[TriedEncoder]:
    """The same, each with the reason why it was taken or not, and one chosen: of those that pass, the fastest; where
    several are as fast as time can be told, the one that finds most of what the reference, the first, finds.
    """
    fastest = max(each.documents_per_second for each in tried if each.passed)
    level = [each for each in tried if each.passed and each.documents_per_second >= _LEVEL * fastest]
    chosen = max(level, key=lambda each: (each.overlap, each.cosine))
    return [
        replace(each, chosen=each is chosen, reason=_reason(each, chosen, fastest) if each.passed else each.reason)
        for each in tried
    ]


class _Judge:
    """Holds vectors of documents against the reference's, as the query encoder's queries see them."""

    def __init__(self, query: Encoder, task: RetrievalTask, reference: Vectors, limits: Limits) -> None:
        self.task, self.reference, self.limits = task, reference, limits
        self.similarity = query.similarity_fn_name
        self.asked = query.encode(list(task.queries.values()), kind="query")
        self.truth = nearest(self.asked, reference, self.similarity)
        self.ndcg = self._ndcg(reference)

    def __call__(self, candidate: Candidate, found: Measured) -> TriedEncoder:
        """What it gains and loses, and whether that is within the limits."""
        likeness = cosines(found.vectors, self.reference)
        kept = overlap(self.truth, nearest(self.asked, found.vectors, self.similarity))
        ndcg = self._ndcg(found.vectors)
        lost = ", ".join(self._lost(float(likeness.min()), kept, ndcg))
        return TriedEncoder(
            candidate.name,
            candidate.file,
            candidate.dtype,
            float(np.median(found.speeds)),
            float(likeness.mean()),
            float(likeness.min()),
            kept,
            ndcg,
            passed=not lost,
            reason=lost,
        )

    def _ndcg(self, documents: Vectors) -> float | None:
        return self.task.score(self.asked, documents, self.similarity) if self.task.relevant else None

    def _lost(self, cosine: float, kept: float, ndcg: float | None) -> Iterator[str]:
        if cosine < self.limits.min_cosine - _ROUNDING:
            yield f"a cosine of {cosine:.4f}, {self.limits.min_cosine:g} is needed"
        if kept < self.limits.min_overlap:
            yield f"finds {kept:.0%} of the first ten, {self.limits.min_overlap:.0%} is needed"
        if ndcg is not None and self.ndcg is not None and self.ndcg - ndcg > _POINTS:
            yield f"loses {self.ndcg - ndcg:.1f} points of nDCG@10, {_POINTS:g} is allowed"


def _reason(each: TriedEncoder, chosen: TriedEncoder, fastest: float) -> str:
    if each is chosen:
        return "fastest that passes" if each.documents_per_second == fastest else "as fast as any, and loses less"
    return "slower" if each.documents_per_second < chosen.documents_per_second else "no faster, and loses more"


def _timed(encoder: Encoder, documents: Sequence[str]) -> tuple[Vectors, float]:
    begun = time.perf_counter()
    vectors = encoder.encode(documents, kind="document")
    return vectors, time.perf_counter() - begun


def _shares(documents: Sequence[str]) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Rows of the documents in fifths, the long ones dealt out first."""
    order = np.argsort([-len(text) for text in documents], kind="stable")
    return [order[start::ROUNDS] for start in range(ROUNDS)]


def _require_enough(documents: int) -> None:
    if documents <= FIRST:
        raise UsageError(
            f"--data: {documents} documents, and everybody finds {FIRST} of them", "give some hundreds of documents"
        )
    if documents < _FEW:
        warn(f"{documents} documents say little of who is fastest and what is lost; give some hundreds")
