"""Which rows stay, by how often each is read, and by what each is worth: that, times how far its pieces are from it.

Nothing is trained. Rows go in rounds, and texts are read anew after each: what has gone is read in pieces, so these
count for more than before, as in the pruning of a Unigram vocabulary (Kudo 2018, arXiv 1804.10959, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emb.vocabulary.choice import check_wanted, fallback_rows
from emb.vocabulary.readings import Readings

# Of the squared distance. 1 would be the move of a text's vector if that were linear in the row; on held-out texts 2
# and 3 keep more (benchmarks/smaller_tables.py).
_POWER = 2


def kept_by_counts(readings: Readings, rows: int) -> list[int]:
    """The ids of exactly `rows` tokens, ascending: those that must stay, and those that the texts use most.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
    """
    check_wanted(rows, len(readings.ids), readings.always)
    return readings.best(readings.counts(readings.ids), readings.ids, rows)


def kept_by_influence(table: Tensor, readings: Readings, rows: int, rounds: int = 4) -> list[int]:
    """The ids of exactly `rows` tokens, ascending: those that must stay, and those that are worth most.

    `table` is `(rows, hidden)`; a row that no token has, as tables filled up to a round number have them, does not
    count.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
    """
    check_wanted(rows, len(readings.ids), readings.always)
    worth = _worth(table, readings, readings.ids)
    # What is never read goes beforehand: without it texts read as before, so that would be a round for nothing.
    used = max(rows, len(readings.always) + int(worth.count_nonzero()))
    kept = readings.best(worth, readings.ids, used)
    for size in np.unique(np.geomspace(used, rows, rounds + 1).round().astype(int))[-2::-1]:
        kept = readings.best(_worth(table, readings, kept), kept, int(size))
    return kept


def _worth(table: Tensor, readings: Readings, kept: Sequence[int]) -> Tensor:
    """What each id is worth `(ids,)`; nothing for one that texts do not use, and for one that must stay anyway."""
    counts, rows = readings.counts(kept), table.detach()
    used = sorted({index for index in kept if counts[index]}.difference(readings.always))
    distance = (fallback_rows(rows, readings.pieces(used, kept)) - rows).square().sum(1, dtype=torch.float64)
    return counts * distance[: len(counts)].cpu() ** _POWER
