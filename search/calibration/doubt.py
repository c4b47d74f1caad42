"""Which queries an encoder is unsure of: those whose best documents it cannot tell apart.

The gap between the first score and the tenth is small there. Of all that was tried (docs/log.md) it alone finds queries
that the documents' encoder answers better, on SciFact and Cranfield, with students of none to four layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emb.errors import ArtifactError, UsageError
from emb.search.calibration.features import DEPTH
from emb.similarity import Vectors

_SHARES = np.linspace(0, 1, 21)  # of queries, at which a gap is noted


def gaps_of(scores: Vectors) -> Vectors:
    """The gap `(queries,)` between the best and the tenth of scores `(queries, hits)`, the best first; where there are
    fewer documents, the last.
    """
    head = np.asarray(scores, np.float64)[:, :DEPTH]
    return np.asarray(head[:, 0] - head[:, -1])


def noted(scores: Vectors) -> tuple[float, ...]:
    """The gaps below which 0, 5, … 100 % of queries with `scores` lie, `(21,)`."""
    return tuple(float(each) for each in np.quantile(gaps_of(scores), _SHARES))


def gap_of_share(gaps: Sequence[float], share: float) -> float:
    """The gap below which a `share` of queries lies, of what `noted` gave.

    Raises:
        ArtifactError: none are noted.
        UsageError: no share between 0 and 1.
    """
    if not 0 < share < 1:
        raise UsageError(
            f"--fallback {share:g}: not a share of queries", "choose a number between 0 and 1, such as 0.2"
        )
    if not gaps:
        raise ArtifactError(
            "the calibration says nothing of queries that the encoder is unsure of: it was made by an earlier version",
            "fit it again: emb calibrate FOLDER --data PATH",
        )
    return float(np.interp(share, _SHARES, gaps))
