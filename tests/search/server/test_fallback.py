"""Queries that the query encoder is unsure of, read by the documents' encoder: `emb search` and `emb serve`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from calibrating import shifted
from click.testing import CliRunner
from searchable import Searchable
from serving import post

import emb
from emb.cli import cli
from emb.errors import ArtifactError, UsageError
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import load
from emb.search.calibration.apply import Calibration
from emb.search.calibration.doubt import gap_of_share, gaps_of, noted
from emb.search.calibration.fallback import Fallback, search_or_fall_back
from emb.search.server.app import create_app
from emb.search.server.offers import open_offers
from emb.search.server.search_routes import open_for, search_routes
from emb.search.server.settings import Searching, Settings

TEXTS = [" ".join(pair) for pair in itertools.combinations(tiny.SENTENCES[:12], 2)]
ASKED = tiny.SENTENCES[:12]
SHARE = 0.5


@pytest.fixture(scope="module")
def place(searchable: Searchable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two encoders that differ, calibrated, and an index of other documents."""
    place = tmp_path_factory.mktemp("fallback")
    rows = ["id,text,part"] + [f'{row},"{text}",{"ab"[row % 2]}' for row, text in enumerate(TEXTS)]
    (place / "docs.csv").write_text("\n".join(rows), encoding="utf-8")
    both = shutil.copytree(searchable.bundle, place / "both")
    emb.calibrate(both, place / "docs.csv", max_queries=120)
    emb.index(place / "docs.csv", place / "index", both, metadata=["part"])
    return place


def test_a_gap_lies_between_the_first_score_and_the_tenth() -> None:
    scores = np.arange(20, 0, -1)[None] / 10
    assert gaps_of(scores) == pytest.approx([0.9])
    assert gaps_of(scores[:, :4]) == pytest.approx([0.3])


def test_so_many_queries_lie_below_the_gap_of_a_share() -> None:
    scores = shifted(400).scores
    for share in (0.1, 0.33, 0.8):
        assert np.mean(gaps_of(scores) < gap_of_share(noted(scores), share)) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="fallback"):
        gap_of_share([0.1] * 21, share)


def _doubted(place: Path) -> dict[str, bool]:
    """Which queries have a small gap, by the index itself."""
    gap = gap_of_share(Calibration.load(place / "both").gaps, SHARE)
    with emb.open_index(place / "index", place / "both") as index:
        scores = {text: [hit.score for hit in index.search(text, 10)] for text in ASKED}
    doubted = {text: each[0] - each[9] < gap for text, each in scores.items()}
    assert 0 < sum(doubted.values()) < len(ASKED)
    return doubted


@pytest.mark.parametrize("how", [{}, {"k": 3}, {"where": {"part": "b"}}], ids=["ten", "three", "filtered"])
def test_the_teacher_reads_what_the_student_is_unsure_of(place: Path, how: dict[str, Any]) -> None:
    encoders = load(place / "both")
    assert isinstance(encoders, BundleEncoder)
    names = {True: encoders.bundle.document.name, False: encoders.bundle.query.name}
    with emb.open_index(place / "index", place / "both") as index:
        for text, doubted in _doubted(place).items():
            hits, encoder = search_or_fall_back(index, place / "both", text, SHARE, **how)
            vector = (encoders.document if doubted else encoders.query).encode(text, kind="query")
            assert encoder == names[doubted]
            assert hits == index.search_vector(vector, **how)


def test_a_server_does_the_same_where_no_encoder_is_named(place: Path) -> None:
    served = load(place / "both", threads=1)
    assert isinstance(served, BundleEncoder)
    settings = Settings("both", kind="query", only="query")
    index = open_for(place / "index", served.query, place / "both" / "query")
    offers = open_offers(index, served, place / "both", Searching(place / "index", fallback=SHARE), settings)
    fallback = Fallback.load(place / "both", index, SHARE)
    app = create_app(served.query, settings, [search_routes(index, offers, fallback)])
    names = {True: offers[-1].name, False: "both"}
    for text, doubted in _doubted(place).items():
        answer = post(app, "/search", {"query": text}).json()
        vector = (served.document if doubted else served.query).encode(text, kind="query")
        assert answer["encoder"] == names[doubted]
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in index.search_vector(vector)]
        assert post(app, "/search", {"query": text, "encoder": "both"}).json()["encoder"] == "both"
        assert post(app, "/search", {"query": text, "dim": 32}).json()["encoder"] == "both"


def test_the_command_says_who_read_the_query(place: Path) -> None:
    common = ["search", "--index", str(place / "index"), "--query", str(place / "both"), "--json"]
    assert "encoder" not in json.loads(CliRunner().invoke(cli, [*common, ASKED[0]]).stdout)
    named = Calibration.load(place / "both")
    for text, doubted in list(_doubted(place).items())[:3]:
        told = json.loads(CliRunner().invoke(cli, [*common, text, "--fallback", str(SHARE)]).stdout)
        assert told["encoder"] == (named.document.name if doubted else named.query.name)
    both = CliRunner().invoke(cli, [*common, "a", "--fallback", "0.5", "--min-relevance", "0.5"])
    assert (both.exit_code, "leave out --fallback" in both.stderr) == (2, True)


def test_what_cannot_fall_back_is_refused(place: Path) -> None:
    calibration = Calibration.load(place / "both")
    with emb.open_index(place / "index", place / "both") as index:
        with pytest.raises(UsageError, match="is no bundle"):
            Fallback.load(place / "both" / "query", index, SHARE)
        try:
            dataclasses.replace(calibration, gaps=()).save(place / "both")
            with pytest.raises(ArtifactError, match="an earlier version"):
                Fallback.load(place / "both", index, SHARE)
        finally:
            calibration.save(place / "both")
    with pytest.raises(UsageError, match="no index to search"):
        emb.serve(place / "both", fallback=SHARE, port=0)
