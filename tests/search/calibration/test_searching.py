"""`emb search --min-relevance`."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from click.testing import CliRunner

import emb
from emb.cli import cli
from emb.errors import ArtifactError, UsageError
from emb.search.calibration.apply import Calibration
from emb.search.calibration.searching import search_relevant
from emb.search.index.description import Description

TEXTS = [" ".join(pair) for pair in itertools.combinations(tiny.SENTENCES[:12], 2)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its calibration, and indexes of the documents it was fitted to."""
    place = tmp_path_factory.mktemp("calibrated")
    model = tiny.tiny_bert(place / "model", layers=1)
    rows = ["id,text,part"] + [f'{row},"{text}",{"ab"[row % 2]}' for row, text in enumerate(TEXTS)]
    (place / "docs.csv").write_text("\n".join(rows), encoding="utf-8")
    emb.calibrate(model, place / "docs.csv", doc=model, max_queries=120)
    emb.index(place / "docs.csv", place / "index", model, metadata=["part"])
    emb.index(place / "docs.csv", place / "narrow", model, dim=8)
    return place


def test_hits_are_cut_where_they_are_no_longer_relevant(place: Path) -> None:
    text, model = TEXTS[5], place / "model"
    with emb.open_index(place / "index", model) as index:
        plain = index.search(text, k=20)
        found = search_relevant(index, model, text, 0.0, k=20)
        vector = emb.load(model).encode([text], kind="query")
        expected = Calibration.load(model).relevance(vector, np.asarray([[hit.score for hit in plain]]))[0]
        assert [hit for hit, _ in found] == plain
        np.testing.assert_allclose([relevance for _, relevance in found], expected, atol=1e-6)
        least = float(expected[4])
        kept = search_relevant(index, model, text, least - 1e-9, k=20)
        assert [hit for hit, _ in kept] == plain[: int((expected >= least - 1e-9).sum())]
        assert len(kept) < 20


def test_a_filter_changes_no_hits_relevance(place: Path) -> None:
    text, model = TEXTS[5], place / "model"
    with emb.open_index(place / "index", model) as index:
        whole = {hit.id: relevance for hit, relevance in search_relevant(index, model, text, 0.0, k=66)}
        part = search_relevant(index, model, text, 0.0, k=66, where={"part": "b"})
    assert len(part) == 33
    assert all(relevance == pytest.approx(whole[hit.id]) for hit, relevance in part)


def test_other_dims_and_other_encoders_are_refused(place: Path, tmp_path: Path) -> None:
    model = place / "model"
    with emb.open_index(place / "narrow", model) as index, pytest.raises(UsageError, match="keeps 8 dims"):
        search_relevant(index, model, "a", 0.5)
    learned = shutil.copytree(place / "index", tmp_path / "learned")
    known = Description.load(learned)
    replace(known, layout=replace(known.layout, learn_cut=True)).write(learned)
    with emb.open_index(learned, model) as index, pytest.raises(UsageError, match="cut in a way of their own"):
        search_relevant(index, model, "a", 0.5)
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "calibration.json").unlink()
    with emb.open_index(place / "index", bare) as index, pytest.raises(ArtifactError, match="no such file"):
        search_relevant(index, bare, "a", 0.5)
    other = tiny.tiny_bert(tmp_path / "other", layers=2)
    emb.index(place / "docs.csv", tmp_path / "index", other)
    with emb.open_index(tmp_path / "index", model, any_encoder=True) as index:
        with pytest.raises(ArtifactError, match="documents encoded by model"):
            search_relevant(index, model, TEXTS[0], 0.5)


def test_the_command_shows_relevance(place: Path) -> None:
    common = ["search", TEXTS[5], "--index", str(place / "index"), "--query", str(place / "model")]
    done = CliRunner().invoke(cli, [*common, "--min-relevance", "0", "-k", "2"])
    assert done.exit_code == 0, done.output
    assert "relevance" in done.output.splitlines()[0]
    hits = json.loads(CliRunner().invoke(cli, [*common, "--min-relevance", "0", "-k", "2", "--json"]).stdout)["hits"]
    assert {"score", "relevance", "id"} <= set(hits[0])
    assert "relevance" not in CliRunner().invoke(cli, common).output


def test_an_export_may_have_encoded_the_documents(place: Path, tmp_path: Path) -> None:
    [exported] = emb.export(place / "model", out=tmp_path / "onnx")
    both = emb.bundle(place / "model", exported, out=tmp_path / "both")
    emb.calibrate(both, place / "docs.csv", max_queries=120)
    emb.index(place / "docs.csv", tmp_path / "index", both)
    with emb.open_index(tmp_path / "index", both) as index:
        assert len(search_relevant(index, both, TEXTS[5], 0.0, k=3)) == 3
    with emb.open_index(place / "index", both) as index, pytest.raises(ArtifactError, match="documents encoded by"):
        search_relevant(index, both, TEXTS[5], 0.0, k=3)  # by the model in torch: other scores
