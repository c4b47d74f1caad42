"""The rows that stay, once each has a score; and the row that a token is read as once its own is gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from emb.errors import UsageError


def highest(scores: Tensor, rows: int, always: Collection[int]) -> list[int]:
    """The ids of exactly `rows` rows, ascending: all of `always`, then those of the highest `scores` `(table,)`.

    Of equal scores the lower id stays, which in most vocabularies is the more frequent token.

    Raises:
        UsageError: more rows must stay than are wanted, or more are wanted than there are.
    """
    check_wanted(rows, len(scores), always)
    ranked = scores.double().clone()
    ranked[sorted(always)] = torch.inf
    return sorted(int(row) for row in ranked.argsort(descending=True, stable=True)[:rows])


def check_wanted(rows: int, table: int, always: Collection[int]) -> None:
    """Refuse a number of rows that cannot be chosen from a table of `table` rows."""
    if not len(always) <= rows <= table:
        raise UsageError(
            f"{rows:,} rows cannot be kept: {len(always):,} must stay, and the table has {table:,}",
            f"choose {len(always):,} to {table:,}",
        )


def fallback_rows(table: Tensor, pieces: Mapping[int, Sequence[int]]) -> Tensor:
    """What the model reads in place of each row `(rows, hidden)` once it is gone: the mean of the rows of its `pieces`.

    A text is not lost with a token, it is read in smaller pieces. A row without pieces is its own: nothing is known of
    what it costs.
    """
    found = table.detach().clone()
    for row, parts in pieces.items():
        found[row] = table.detach()[list(parts)].mean(0)
    return found
