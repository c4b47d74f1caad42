"""Clients that leave, dawdle, or send what no client should: refused early, and nobody else notices."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from serving import Held, listening, post, until

from emb.runtime.encoder import Encoder, load
from emb.search.server.app import create_app
from emb.search.server.heads import BoundedProtocol
from emb.search.server.openai_routes import EmbeddingsRequest
from emb.search.server.search_routes import SearchRequest
from emb.search.server.settings import Settings
from emb.search.server.tei_routes import EmbedRequest

HEAD = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def encoder(bert_folder: Path) -> Encoder:
    return load(bert_folder, threads=1)


@contextmanager
def _line(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        yield line


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _idle(app: FastAPI) -> bool:
    return app.state.service.traffic.at_work == app.state.service.batcher._texts == 0


def _still_answers(address: str) -> bool:
    return httpx.post(f"{address}/embed", json={"inputs": "a"}).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_request(encoder: Encoder) -> None:
    app = create_app(encoder)
    with listening(app) as address:
        with _line(address) as line:
            line.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"inputs": [')
            until(lambda: app.state.service.traffic.at_work == 1)
        until(lambda: _idle(app))
        assert _still_answers(address)


def test_a_client_that_leaves_in_the_middle_of_its_answer(encoder: Encoder) -> None:
    app = create_app(encoder)
    content = json.dumps({"inputs": ["the cat sat"] * 2000}).encode()
    with listening(app) as address:
        with _line(address) as line:
            line.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            assert line.recv(20).startswith(b"HTTP/1.1 200")
        until(lambda: _idle(app))
        assert _still_answers(address)


def test_the_texts_of_clients_that_left_are_not_encoded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(encoder)
    monkeypatch.setattr(encoder, "encode_ids", held)
    app = create_app(encoder)
    held.batches.clear()
    held.free.clear()
    with listening(app) as address:
        with _line(address) as first, _line(address) as second:
            for line in (first, second):
                line.sendall(HEAD + b'Content-Length: 22\r\n\r\n{"inputs": ["a", "b"]}')
                until(lambda: held.batches)
            until(lambda: app.state.service.batcher._texts == 2)
        until(lambda: _idle(app))
        held.free.set()
        assert _still_answers(address)
    assert list(map(len, held.batches)) == [2, 1]


def test_a_body_in_chunks_is_read(encoder: Encoder) -> None:
    with listening(create_app(encoder)) as address, _line(address) as line:
        line.sendall(CHUNKED + _chunk(b'{"inp') + _chunk(b'uts": "a"}') + _chunk(b""))
        assert line.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", [b"/embed", b"/nothing"])
def test_of_a_body_without_end_little_is_taken(encoder: Encoder, path: bytes) -> None:
    with listening(create_app(encoder, Settings(payload_limit=100_000))) as address:
        with _line(address) as line:
            line.sendall(CHUNKED.replace(b"/embed", path))
            assert _taken(line) < 15_000_000  # what the system's own buffers hold
        assert _still_answers(address)


def _taken(line: socket.socket) -> int:
    """Bytes of 65 MB that the other end takes before it closes."""
    block = _chunk(b"x" * 65_536)
    for sent in range(1000):
        try:
            line.sendall(block)
        except OSError:
            return sent * len(block)
    return 1000 * len(block)


def test_a_body_that_drips_has_its_time_like_any_other(encoder: Encoder) -> None:
    app = create_app(encoder, Settings(timeout=0.4))
    with listening(app) as address, _line(address) as line:
        line.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        began = time.monotonic()
        line.settimeout(0.05)
        answer = b""
        while not answer and time.monotonic() < began + 20:
            line.sendall(b"x")
            try:
                answer = line.recv(100)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 504")
        until(lambda: _idle(app))


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
@pytest.mark.parametrize("content", [b"[" * 900_000, b'{"inputs":' * 100_000, b"\xff", b"", b"NaN", b"1e999"])
def test_what_is_no_json_that_can_be_read_is_the_clients_fault(encoder: Encoder, path: str, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = post(create_app(encoder), path, None, json=None, content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("asked", "field"), [(EmbedRequest, "inputs"), (EmbeddingsRequest, "input"), (SearchRequest, "where")]
)
@pytest.mark.parametrize("item", [None, {}, [None], 1.5], ids=str)
def test_of_many_wrong_items_few_are_told(asked: type[BaseModel], field: str, item: Any) -> None:
    wrong = {"part": [item] * 1000} if field == "where" else [item] * 1000
    with pytest.raises(ValidationError) as error:
        asked.model_validate({field: wrong, "query": "a"})
    assert error.value.error_count() < 10


def test_of_many_wrong_names_one_is_told() -> None:
    with pytest.raises(ValidationError) as error:
        SearchRequest.model_validate({"where": {str(row): 1 for row in range(1000)}, "query": "a"})
    assert error.value.error_count() == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/embeddings",
            {"input": "a", "encoding_format": None, "dimensions": None, "input_type": None, "user": None},
        ),
        ("/embed", {"inputs": "a", "normalize": None, "truncate": None, "prompt_name": None, "dimensions": None}),
    ],
)
def test_null_is_as_if_the_field_were_not_there(encoder: Encoder, path: str, body: dict[str, Any]) -> None:
    app = create_app(encoder)
    found = post(app, path, body)
    assert found.status_code == 200
    assert found.json() == post(app, path, {name: value for name, value in body.items() if value}).json()


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_a_packed_body_is_refused_for_what_it_is(encoder: Encoder, path: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    content = gzip.compress(b'{"inputs": "a", "input": "a"}')
    answer = post(create_app(encoder), path, None, json=None, content=content, headers=headers)
    assert answer.status_code == 415
    assert "gzip" in answer.text


@pytest.mark.parametrize(
    "endless",
    [
        HEAD + b"X: " + b"a" * 1_000_000,
        HEAD + b"".join(b"X%d: a\r\n" % number for number in range(60_000)),
        b"GET /" + b"a" * 1_000_000,
        CHUNKED + _chunk(b"{") + b"0\r\n" + b"".join(b"X%d: a\r\n" % number for number in range(60_000)),
        CHUNKED + b"1;" + b"a" * 1_000_000,
    ],
    ids=["a header", "headers", "a path", "trailers", "an extension"],
)
def test_a_head_without_end_is_not_read_on(encoder: Encoder, endless: bytes) -> None:
    with listening(create_app(encoder), http=BoundedProtocol, timeout_keep_alive=60) as address:
        with _line(address) as line, suppress(ConnectionError):
            line.sendall(endless)
            while found := line.recv(65_536):  # a TimeoutError where the server waits for more
                assert not found.startswith(b"HTTP/1.1 2")
        assert _still_answers(address)


@pytest.mark.parametrize("begun", [b"", b"POST /embed HTTP/1.1\r\nHo"], ids=["nothing", "a part"])
def test_a_head_that_does_not_come_has_its_time(encoder: Encoder, begun: bytes) -> None:
    with listening(create_app(encoder), http=BoundedProtocol, timeout_keep_alive=1) as address:
        with _line(address) as line:
            line.sendall(begun)
            assert line.recv(100) == b""


def test_heads_of_usual_length_pass_one_after_the_other(encoder: Encoder) -> None:
    content = b'{"inputs": "a"}'
    asked = HEAD + b"X: %b\r\nContent-Length: %d\r\n\r\n%b" % (b"a" * 30_000, len(content), content)
    with listening(create_app(encoder), http=BoundedProtocol) as address, _line(address) as line:
        found = b""
        line.sendall(asked[:20_000])  # a part of a head, looked at alone
        time.sleep(0.2)
        line.sendall(asked[20_000:] + asked * 4)
        while found.count(b"HTTP/1.1 200") < 5 and (part := line.recv(65_536)):  # nothing: the connection is closed
            found += part
    assert found.count(b"HTTP/1.1 200") == 5


def test_an_upgrade_over_a_socket_gets_no_connection(encoder: Encoder) -> None:
    upgrade = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n\r\n"
    )
    with listening(create_app(encoder, key=b"secret")) as address, _line(address) as line:
        line.sendall(b"GET /embed HTTP/1.1\r\nHost: localhost\r\n" + upgrade)
        assert line.recv(100).split()[1] in (b"401", b"403")


def test_texts_of_little_meaning_have_vectors(encoder: Encoder) -> None:
    answer: Any = post(create_app(encoder), "/embed", {"inputs": ["the of and", "\U0001f600\U0001f680", " ", "?!"]})
    assert (answer.status_code, len(answer.json())) == (200, 4)
