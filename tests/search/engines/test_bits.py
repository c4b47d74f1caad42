"""What signs lose is said: little of vectors that use their dims alike, much where few dims decide."""

from __future__ import annotations

import numpy as np
import pytest

from emb.search.engines.bits import kept_by_signs, warn_of_lost
from emb.similarity import unit

_RANDOM = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
ALIKE = unit(np.repeat(_RANDOM[:100], 10, axis=0) + 0.5 * _RANDOM)
FEW = unit(_RANDOM * np.geomspace(1, 0.01, 64, dtype=np.float32))


def test_signs_of_vectors_that_are_turned_along_their_axes_lose_more() -> None:
    assert kept_by_signs(ALIKE, 100) > 0.98
    assert kept_by_signs(FEW, 100) < 0.9
    assert kept_by_signs(FEW, 1000) == 1


def test_much_that_is_lost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_lost(ALIKE, 10_000)
    warn_of_lost(FEW, 1000)  # as many candidates as there are rows
    assert capsys.readouterr().err == ""
    warn_of_lost(FEW, 10_000)
    assert "of these vectors' ten nearest" in " ".join(capsys.readouterr().err.split())
