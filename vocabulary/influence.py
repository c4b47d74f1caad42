"""Which rows stay, by what each is worth: how often it is read, times how far its pieces are from it.

Nothing is trained. Rows go in rounds, and texts are read anew after each: what has gone is read in pieces, so these
count for more than before, as in the pruning of a Unigram vocabulary (Kudo 2018, arXiv 1804.10959, section 3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emb.vocabulary.choice import check_wanted, fallback_rows, highest

# Of the squared distance. 1 would be the move of a text's vector if that were linear in the row; on held-out texts 2
# and 3 keep more (benchmarks/smaller_tables.py).
_POWER = 2


class Readings(Protocol):
    """Texts as they read with a part of the vocabulary; `WordPieces` is one."""

    @property
    def ids(self) -> Sequence[int]:
        """The ids of the whole vocabulary, ascending."""

    def counts(self, kept: Sequence[int]) -> Tensor:
        """How often they use each id `(rows,)`."""

    def pieces(self, ids: Iterable[int], kept: Collection[int]) -> Mapping[int, Sequence[int]]:
        """What each of `ids` is read in without its own row, the others of `kept` being there."""


def kept_by_influence(
    table: Tensor, readings: Readings, *, rows: int, always: Collection[int], rounds: int = 4
) -> list[int]:
    """The ids of exactly `rows` rows of `table` `(rows, hidden)`, ascending, `always` among them.

    A row of `table` that no token has, as tables filled up to a round number have them, is not among them.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
    """
    kept = list(readings.ids)
    check_wanted(rows, len(kept), always)
    for size in np.geomspace(len(kept), rows, rounds + 1)[1:].round().astype(int):
        worth = torch.full((len(table),), -1.0, dtype=torch.float64)
        worth[kept] = _worth(table.detach(), readings, kept)[kept]
        kept = highest(worth, max(int(size), len(always)), always)
    return kept


def _worth(table: Tensor, readings: Readings, kept: Sequence[int]) -> Tensor:
    counts = torch.zeros(len(table), dtype=torch.float64)
    counts[kept] = readings.counts(kept).double()[kept]
    used = [index for index in kept if counts[index]]
    distance = (fallback_rows(table, readings.pieces(used, kept)) - table).double().square().sum(1)
    return counts * distance**_POWER
