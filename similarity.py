"""How close two sets of vectors are: row by row, and as a geometry.

Vectors that are not finite are found here too, before they are written, scored or fitted to. Pure numpy, so that
the training loop, the int8 selection and the parity report all measure with the same ruler. Vectors need not be
normalised: every measure but `max_abs_diff` ignores length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.errors import ArtifactError, UsageError

Vectors = np.ndarray[Any, Any]
_BLOCK = 1024  # query rows per block of similarities: (1024, texts) float32 at a time
_MAX_PAIRED = 1000  # rows that Spearman looks at: 499,500 pairs


@dataclass(frozen=True)
class Parity:
    """A candidate's distance from its reference over the same texts.

    Attributes:
        texts: number of rows compared.
        max_abs_diff: largest difference of any component.
        mean_cosine, p01_cosine, min_cosine: over the texts' own cosines; p01 is the 1st percentile.
        spearman: rank correlation, -1 to 1, of all pairwise cosines; 1 for fewer than 3 texts.
        overlap_at_10: mean share of the 10 nearest neighbours that both agree on, 0 to 1.
    """

    texts: int
    max_abs_diff: float
    mean_cosine: float
    p01_cosine: float
    min_cosine: float
    spearman: float
    overlap_at_10: float

    def as_dict(self) -> dict[str, float]:
        """The figures by name, for JSON."""
        return dataclasses.asdict(self)


def compare(reference: Vectors, candidate: Vectors) -> Parity:
    """Measure `candidate` `(texts, dim)` against `reference` of the same shape, row by row.

    Raises:
        UsageError: the shapes differ, or there is no row.
    """
    reference, candidate = _checked(reference, candidate)
    cosine = cosines(reference, candidate)
    return Parity(
        texts=len(reference),
        max_abs_diff=float(np.nan_to_num(np.abs(reference - candidate), nan=np.inf, posinf=np.inf).max()),
        mean_cosine=float(cosine.mean()),
        p01_cosine=float(np.percentile(cosine, 1)),
        min_cosine=float(cosine.min()),
        spearman=geometry_spearman(reference, candidate),
        overlap_at_10=neighbour_overlap(reference, candidate, 10),
    )


def dots(a: Vectors, b: Vectors) -> Vectors:
    """Dot products `(rows of a, rows of b)` float32 that depend on the two rows alone.

    A product of matrices in float32 adds in an order that depends on the processor and on where a row stands: two
    equal documents get scores that differ in the last bit, and rank by chance. Summed in float64 and rounded once,
    they tie, and a stable sort keeps their order.
    """
    return np.asarray(np.asarray(a, np.float64) @ np.asarray(b, np.float64).T, np.float32)


def similarities(a: Vectors, b: Vectors, measure: str = "cosine") -> Vectors:
    """Similarity `(rows of a, rows of b)` float32, higher is closer: sentence-transformers' cosine, dot, euclidean and
    manhattan.

    Raises:
        UsageError: another measure.
    """
    if measure not in _MEASURES:
        raise UsageError(f"similarity {measure!r} is unknown", f"known: {', '.join(_MEASURES)}")
    return _MEASURES[measure](a, b)


def _euclidean(a: Vectors, b: Vectors) -> Vectors:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    return np.asarray(-np.sqrt(np.maximum(squares, 0)), np.float32)


def _manhattan(a: Vectors, b: Vectors) -> Vectors:
    b = np.asarray(b, np.float64)
    rows = [-np.abs(row - b).sum(1) for row in np.asarray(a, np.float64)]
    return np.asarray(rows, np.float32).reshape(len(a), len(b))


_MEASURES: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": lambda a, b: dots(unit(a), unit(b)),
    "dot": dots,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}


def cosines(a: Vectors, b: Vectors) -> Vectors:
    """Cosine `(texts,)` of each row of `a` with the same row of `b`.

    Two zero vectors are equal, so their cosine is 1; a zero or non-finite vector beside a real one has cosine 0.
    Computed in float64: at 0.99999 the rounding of float32 sums would show.
    """
    return np.asarray(
        np.where(_is_zero(a) & _is_zero(b), 1.0, np.einsum("ij,ij->i", unit(a, np.float64), unit(b, np.float64)))
    )


def unit(vectors: Vectors, dtype: Any = np.float32) -> Vectors:
    """Rows scaled to length 1; zero rows, and rows with a non-finite component, become zero."""
    rows = np.asarray(vectors, dtype=dtype)
    norms = np.sqrt(np.add.reduce(rows * rows, axis=1, keepdims=True))
    usable = (norms > 0) & np.isfinite(norms)
    if usable.all():
        return np.asarray(rows / norms)
    return np.where(usable, rows / np.where(usable, norms, 1), 0)


def truncated(vectors: Vectors, dim: int) -> Vectors:
    """The first `dim` components of each row, scaled to length 1 again."""
    return unit(vectors[:, :dim])


def neighbour_overlap(
    a: Vectors, b: Vectors, k: int = 10, index: Vectors | None = None, measure: str = "cosine"
) -> float:
    """Mean share, 0 to 1, of each row's `k` nearest neighbours (by `measure`, itself excluded) in `a` that are also its
    `k` nearest in `b`.

    With an `index` of as many rows, the neighbours of both are sought among its rows: what search with queries of
    one model on documents of another would find. With fewer than `k + 1` rows the neighbourhood is a third of the
    others (all of them would always agree); with fewer than three rows there is nothing to order and the overlap is
    1.
    """
    if measure == "cosine":  # made as long as one another once, not for every block
        a, b, index, measure = unit(a), unit(b), None if index is None else unit(index), "dot"
    return _overlap((a, a if index is None else index), (b, b if index is None else index), k, measure)


def neighbours_found(truth: Vectors, queries: Vectors, documents: Vectors, k: int = 10) -> float:
    """Mean share, 0 to 1, of each row's `k` nearest neighbours in `truth` that `queries` find among `documents`.

    All three have a row for each text; `queries` and `documents` share a dim. What is lost by searching with a
    smaller model, in fewer dims, than those of `truth`.
    """
    truth = unit(truth)
    return _overlap((truth, truth), (unit(queries), unit(documents)), k)


def _overlap(a: tuple[Vectors, Vectors], b: tuple[Vectors, Vectors], k: int, measure: str = "dot") -> float:
    count = len(a[0])
    k = min(k, max(1, (count - 1) // 3))
    if count < 3:
        return 1.0
    shares = [_shared([a, b], slice(start, start + _BLOCK), k, measure) for start in range(0, count, _BLOCK)]
    return float(np.concatenate(shares).mean())


def geometry_spearman(a: Vectors, b: Vectors) -> float:
    """Spearman correlation of all pairwise cosines in `a` with those in `b`.

    Beyond 1,000 rows an evenly spaced 1,000 stand for all.
    """
    rows = np.linspace(0, len(a) - 1, min(len(a), _MAX_PAIRED)).round().astype(int)
    if len(rows) < 3:
        return 1.0
    upper = np.triu_indices(len(rows), 1)
    return spearman(*(dots(vectors, vectors)[upper] for vectors in (unit(a[rows]), unit(b[rows]))))


def spearman(x: Vectors, y: Vectors) -> float:
    """Spearman rank correlation, ties sharing their mean rank; 0 where one side is constant, 1 where both are."""
    ranks = [_ranks(np.asarray(values)) for values in (x, y)]
    x, y = (rank - rank.mean() for rank in ranks)
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / scale, -1, 1)) if scale else float(not x.any() and not y.any())


def _ranks(values: Vectors) -> Vectors:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[inverse.reshape(-1)], dtype=np.float64)


def _shared(sides: list[tuple[Vectors, Vectors]], rows: slice, k: int, measure: str) -> Vectors:
    near_a, near_b = (_neighbours(vectors[rows], index, rows.start, k, measure) for vectors, index in sides)
    return np.asarray((near_a[:, :, None] == near_b[:, None, :]).any(2).mean(1))


def _neighbours(queries: Vectors, index: Vectors, first: int, k: int, measure: str = "dot") -> Vectors:
    scores = similarities(queries, index, measure)
    itself = np.arange(len(queries))
    scores[itself, itself + first] = -np.inf
    return highest(scores, k)


def highest(scores: Vectors, k: int) -> Vectors:
    """Columns `(rows, k)` of the `k` highest scores of each row, ascending; among equal ones the first columns."""
    least = np.partition(scores, -k, axis=1)[:, -k, None]
    above, level = scores > least, scores == least
    wanted = k - above.sum(1, keepdims=True)  # of those that are level: a partition alone would take any of them
    return np.nonzero(above | (level & (level.cumsum(1) <= wanted)))[1].reshape(-1, k)


def _is_zero(vectors: Vectors) -> Vectors:
    return np.asarray(~np.asarray(vectors).any(1))


def _checked(reference: Vectors, candidate: Vectors) -> tuple[Vectors, Vectors]:
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape != candidate.shape or reference.ndim != 2 or not len(reference):
        raise UsageError(
            f"vectors of shape {reference.shape} cannot be compared with vectors of shape {candidate.shape}",
            "give the same texts, at least one, at the same dim",
        )
    return reference, candidate


_SHOWN = 80  # characters of a text in messages
_HINT = "the model's weights are damaged, or too large for the file's precision; validate it"


class NotFiniteError(ArtifactError):
    """A vector that holds NaN or infinity; `row` is its text's among those checked, counted from 0."""

    def __init__(self, row: int, text: str, where: str = "") -> None:
        super().__init__(f"{where}text {row + 1} gets NaN or infinity: {text[:_SHOWN]!r}", _HINT)
        self.row, self.text = row, text

    def placed(self, before: int, where: str = "") -> NotFiniteError:
        """The same where `before` texts came before those checked; `where` begins the message."""
        return NotFiniteError(before + self.row, self.text, where)


def first_not_finite(vectors: Vectors) -> int | None:
    """The first row of `vectors` `(texts, dim)` with NaN or infinity in it; stored formats have none."""
    if vectors.dtype.kind == "f" and len(vectors) == 1:  # a query
        return None if np.isfinite(vectors).all() else 0
    # One sum over all: NaN and infinity come through it, and a sum too large for float32 is looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        if vectors.dtype.kind != "f" or np.isfinite(vectors.sum()):
            return None
    good = np.isfinite(vectors).all(axis=1)
    return None if good.all() else int(np.argmin(good))


def require_finite(vectors: Vectors, texts: Sequence[str], where: str = "") -> None:
    """Check the vectors `(texts, dim)` of `texts`; `where` begins the message.

    Raises:
        NotFiniteError: NaN or infinity; the first such text is named by its place and its beginning.
    """
    row = first_not_finite(vectors)
    if row is not None:
        raise NotFiniteError(row, texts[row], where)


def share_of_first(vectors: Vectors, dims: int) -> float:
    """The share of the squared length of `vectors` `(texts, dim)` that their first `dims` hold."""
    energy = np.square(vectors, dtype=np.float64).sum(axis=0)
    return float(energy[:dims].sum() / max(energy.sum(), 1e-30))
