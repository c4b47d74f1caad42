"""`/search`, and the query encoder of a bundle behind a server."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny
import uvicorn
from searchable import Searchable
from serving import post, searching_app, until

import emb
from emb.errors import ArtifactError
from emb.runtime.encoder import load
from emb.search.server.app import create_app
from emb.search.server.offers import open_offers
from emb.search.server.search_routes import open_for, search_routes
from emb.search.server.settings import Searching, Settings


@pytest.fixture(scope="module")
def bundle(searchable: Searchable) -> Path:
    return searchable.bundle


@pytest.fixture(scope="module")
def index(searchable: Searchable) -> Path:
    return searchable.index


@pytest.fixture(scope="module")
def app(bundle: Path, index: Path) -> Any:
    query = load(bundle / "query", threads=1)
    settings = Settings("both", kind="query", only="query")
    opened = open_for(index, query, bundle / "query")
    offers = open_offers(opened, query, bundle / "query", Searching(index), settings)
    return create_app(query, settings, [search_routes(opened, offers)])


def test_search_finds_what_the_index_finds(app: Any, bundle: Path, index: Path) -> None:
    text = "the river and the town"
    answer = post(app, "/search", {"query": text, "k": 3}).json()
    with emb.open_index(index, bundle) as opened:
        expected = opened.search(text, k=3)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], [hit.score for hit in expected], atol=1e-6)
    assert answer["hits"][0]["passage"] == expected[0].passage
    assert set(answer["seconds"]) == {"encode", "search"}


def test_a_search_may_be_narrowed(app: Any) -> None:
    hits = post(app, "/search", {"query": "the river", "k": 20, "where": {"part": "b"}}).json()["hits"]
    assert len(hits) == len(tiny.SENTENCES) // 2
    assert {hit["metadata"]["part"] for hit in hits} == {"b"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"query": "  "}, "query is empty"),
        ({"query": "a", "where": {"colour": "red"}}, "colour"),
        ({"query": "a", "k": 0}, "k"),
        ({"query": "a", "k": "3"}, "k"),
        ({"query": "a\0b"}, "NUL"),
        ({"query": "a\ud800"}, "surrogate"),
        ({"query": "a", "where": {"\ud800": "b"}}, "not in this index"),
        ({"query": "a", "where": {"part": 1}}, "a list of strings"),
        ({"query": "a", "where": {"part": [1]}}, "a list of strings"),
        ({"query": "\U0001f600 \U0001f680"}, "knows no token"),
        ({}, "query"),
    ],
)
def test_a_search_that_means_nothing_is_refused(app: Any, body: dict[str, Any], said: str) -> None:
    answer = _searched(app, body)
    assert answer.status_code == 422
    assert said in answer.text
    assert "--" not in answer.text


def _searched(app: Any, body: dict[str, Any]) -> httpx.Response:
    content = json.dumps(body)  # httpx itself would not write half of a surrogate pair
    return post(app, "/search", None, json=None, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize("values", [["\ud800"], list(map(str, range(150_000)))], ids=["half a pair", "many"])
@pytest.mark.parametrize("more", [[], ["b"]], ids=["", "and one"])
def test_values_that_no_document_has_find_none(app: Any, values: list[str], more: list[str]) -> None:
    answer = _searched(app, {"query": "the river", "k": None, "where": {"part": values + more}})
    assert (answer.status_code, len(answer.json()["hits"])) == (200, 10 * len(more))


def test_a_long_query_is_read_as_emb_search_reads_it(app: Any, bundle: Path, index: Path) -> None:
    text = "cat " + " " * 100_000 + "the river and the town"
    hits = _searched(app, {"query": text, "k": 3}).json()["hits"]
    with emb.open_index(index, bundle) as opened:
        assert [hit["id"] for hit in hits] == [hit.id for hit in opened.search(text, k=3)]
    assert hits == _searched(app, {"query": "cat", "k": 3}).json()["hits"]


@pytest.mark.parametrize("after", [None, "another"])
def test_an_index_that_went_is_told_and_where_to_look(
    bundle: Path, index: Path, tmp_path: Path, after: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "index"
    shutil.copytree(index, place)
    app = searching_app(bundle, place)
    assert _searched(app, {"query": "the river"}).status_code == 200
    place.rename(tmp_path / "old")
    if after:
        shutil.copytree(index, place)
    answer = _searched(app, {"query": "the river"})
    assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")
    assert "its log says" in answer.text
    assert str(place) not in answer.text
    assert str(place) in caplog.text
    assert "Traceback" not in caplog.text


def test_a_query_encoder_refuses_documents(app: Any) -> None:
    assert post(app, "/embed", {"inputs": "a", "prompt_name": "document"}).status_code == 422
    assert post(app, "/v1/embeddings", {"input": "a", "input_type": "passage"}).status_code == 400
    assert post(app, "/v1/embeddings", {"input": "a"}).status_code == 200
    assert post(app, "/embed", {"inputs": "a", "prompt_name": "query"}).status_code == 200


def test_an_index_of_another_space_is_not_served(index: Path, tmp_path: Path) -> None:
    stranger = tiny.tiny_bert(tmp_path / "stranger", layers=1)
    with pytest.raises(ArtifactError, match="not known to be made from it"):
        open_for(index, load(stranger), stranger)


@contextmanager
def _served(monkeypatch: pytest.MonkeyPatch, *given: Any, **options: Any) -> Iterator[str]:
    """`emb.serve` in a thread, which takes no signals, until the block ends."""
    servers: list[uvicorn.Server] = []
    run = uvicorn.Server.run

    def noted(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        servers.append(self)
        run(self, sockets=sockets)

    monkeypatch.setattr(uvicorn.Server, "run", noted)
    thread = threading.Thread(target=lambda: emb.serve(*given, port=0, **options), daemon=True)
    thread.start()
    until(lambda: servers and servers[0].started, 60)
    try:
        yield f"http://127.0.0.1:{servers[0].servers[0].sockets[0].getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        thread.join(20)


def test_a_bundle_is_served_by_its_query_encoder(bundle: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _served(monkeypatch, bundle, index=index) as address:
        found = httpx.post(f"{address}/embed", json={"inputs": ["the cat"]}).json()
        hits = httpx.post(f"{address}/search", json={"query": "the cat"}).json()["hits"]
    np.testing.assert_allclose(found, load(bundle).encode(["the cat"], kind="query"), atol=1e-6)
    assert len(hits) == 10
