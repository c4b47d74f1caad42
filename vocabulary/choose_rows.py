"""Which way of making new rows is best, judged end to end: row similarity misleads, so whole texts decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emb.model.embedding_model import EmbeddingModel
from emb.similarity import Vectors, cosines, neighbour_overlap
from emb.tokens import Rows
from emb.vocabulary.initialise import METHODS, Ground, rows_of
from emb.vocabulary.reading import Reading, vectors_of
from emb.vocabulary.reading import rows_of as ids_of
from emb.vocabulary.surgery import table_of

AUTO = "auto"


@dataclass(frozen=True)
class InitScore:
    """Texts with new tokens, their rows untrained: mean cosine to the vectors they had, and neighbour overlap."""

    method: str
    cosine: float
    overlap: float


def made_rows(method: str, ground: Ground) -> dict[str, Vectors]:
    """New rows by name of the way: of `method` alone, or of all for "auto"."""
    return {name: rows_of(name, ground) for name in (METHODS if method == AUTO else [method])}


def write_best(
    model: EmbeddingModel, new_ids: range, made: Mapping[str, Vectors], dev: Reading
) -> tuple[str, list[InitScore]]:
    """Write the best of the `made` rows for `new_ids` into `model`; which it is, and the scores of all.

    `dev` is how texts read before; those without a new token decide nothing. Of equals the first is taken: the mean.
    """
    rows = ids_of(model, dev.texts)
    places = [place for place, row in enumerate(rows) if np.any(row >= new_ids.start)]
    scores = []
    for name, vectors in made.items():
        _write(model, new_ids, vectors)
        scores.append(_score(model, name, dev, rows, places))
    best = max(scores, key=lambda each: each.cosine).method
    _write(model, new_ids, made[best])
    return best, scores


def _score(model: EmbeddingModel, name: str, dev: Reading, rows: Rows, places: Sequence[int]) -> InitScore:
    if not places:
        return InitScore(name, 0.0, 0.0)
    after = vectors_of(model, [rows[place] for place in places])
    before = dev.vectors[list(places)]
    return InitScore(name, float(cosines(before, after).mean()), neighbour_overlap(before, after, 10))


def _write(model: EmbeddingModel, new_ids: range, rows: Vectors) -> None:
    table = table_of(model)
    with torch.no_grad():
        table[new_ids.start : new_ids.stop] = torch.from_numpy(rows).to(table)
