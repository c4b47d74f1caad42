"""New rows for a fine-tuned sibling, from those trained on its base: LEP (arXiv 2412.21140, section 3.2).

The sibling's row of a new token is the base's, turned by a matrix D from one space into the other: none for "swap";
the one that leads the rows both have from base to sibling for "overlap"; the one that leads the means of the pieces of
the new tokens there for "conversion".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emb.similarity import Vectors

MEAN = "mean"  # the sibling's own: what propagation has to beat


def propagated_rows(
    base: Vectors, sibling: Vectors, new: Vectors, pieces: Sequence[Sequence[int]]
) -> dict[str, Vectors]:
    """Rows `(added, hidden)` for `sibling` by each way, and the mean of its own pieces first.

    Args:
        base, sibling: their rows of the tokens that both had `(old, hidden)`, in one order.
        new: the rows of the new tokens, trained on the base `(added, hidden)`.
        pieces: the places in `base` of what each new token was read in before.
    """
    base_means, sibling_means = _means(base, pieces), _means(sibling, pieces)
    return {
        MEAN: sibling_means,
        "swap": new,
        "overlap": new @ _turn(base, sibling),
        "conversion": new @ _turn(base_means, sibling_means),
    }


def _means(table: Vectors, pieces: Sequence[Sequence[int]]) -> Vectors:
    return np.stack([table[list(each)].mean(0) for each in pieces])


def _turn(origin: Vectors, target: Vectors) -> Vectors:
    """D of least squares; where rows say nothing of a direction, it leaves that as it is."""
    change = np.linalg.lstsq(origin.astype(np.float64), (target - origin).astype(np.float64), rcond=None)[0]
    return np.asarray(np.eye(origin.shape[1]) + change)
