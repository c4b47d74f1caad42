"""Sign bits of vectors whose first dims say most are warned of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emb.export import export
from emb.export.vector_graphs import warn_of_uneven
from emb.similarity import share_of_first


@pytest.mark.parametrize(("first", "warned"), [(1.0, False), (1.6, False), (2.0, True)])
def test_plain_bits_of_uneven_vectors(first: float, warned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.ones((10, 16), np.float32)
    vectors[:, :4] *= first
    assert share_of_first(vectors, 4) == pytest.approx(first**2 / (first**2 + 3))
    warn_of_uneven(vectors)
    assert ("plain sign bits" in capsys.readouterr().err) == warned


def test_an_export_is_warned_of_when_it_writes_bits(
    student_folder: Path, tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr("emb.export.pipeline.warn_of_uneven", lambda vectors: seen.append(vectors.shape))
    for number, vectors in enumerate((["int8"], ["binary"])):
        export(
            student_folder,
            layers=[1],
            dims=[16],
            out=tmp_path / str(number),
            vectors=vectors,
            threads=1,
            calibration_texts=sentences,
        )
    assert [shape[1] for shape in seen] == [16]
