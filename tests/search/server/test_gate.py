"""What stands before every route: the key, the size of a body, how many are at work, and their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request, WebSocket
from serving import Held, asked, get, post, until

from emb.errors import UsageError
from emb.runtime.encoder import Encoder, load
from emb.search.server.app import create_app
from emb.search.server.gate import Gate, Traffic
from emb.search.server.keys import VARIABLE, read_key
from emb.search.server.settings import Settings


@pytest.fixture(scope="module")
def encoder(bert_folder: Path) -> Encoder:
    return load(bert_folder, threads=1)


@pytest.fixture
def held(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Held:
    found = Held(encoder)
    monkeypatch.setattr(encoder, "encode_ids", found)
    return found


@pytest.mark.parametrize(
    ("header", "status"),
    [(None, 401), ("Bearer secret", 200), ("Bearer secre", 401), ("Bearer secret2", 401), ("secret", 401)],
)
@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_a_key_is_asked_for(encoder: Encoder, header: str | None, status: int, path: str) -> None:
    headers = {"Authorization": header} if header else {}
    app = create_app(encoder, key=b"secret")
    answer = post(app, path, {"input": "a", "inputs": "a"}, headers=headers)
    assert answer.status_code == status
    assert get(app, "/info", headers=headers).status_code == status
    assert get(app, "/health").status_code == get(app, "/metrics").status_code == 200


def test_keys_are_compared_in_constant_time(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("emb.search.server.keys.hmac.compare_digest", lambda a, b: bool(seen.append((a, b))) or a == b)
    app = create_app(encoder, key="schlüssel".encode())
    answer = post(app, "/embed", {"inputs": "a"}, headers={b"Authorization": "Bearer schlüssel".encode()})
    assert answer.status_code == 200
    assert seen == [("Bearer schlüssel".encode(),) * 2]


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    file = tmp_path / "key"
    file.write_text("secret\n", encoding="utf-8")
    assert read_key(None) is None
    assert read_key(file) == b"secret"
    monkeypatch.setenv(VARIABLE, "other")
    assert read_key(None) == b"other"
    assert read_key(file) == b"secret"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfsecret\r\n", b" secret\n\n"])
def test_what_editors_put_around_a_key_is_no_part_of_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    assert read_key(tmp_path / "key") == b"secret"


def test_a_variable_that_is_no_utf8_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "\udcff")
    with pytest.raises(UsageError, match=VARIABLE):
        read_key(None)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff", None, b"one\ntwo\n", b"a\0b"])
def test_a_key_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(UsageError, match="api_key_file"):
        read_key(tmp_path / "key")


def test_an_empty_key_in_the_environment_does_not_open_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(UsageError, match=VARIABLE):
        read_key(None)


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_a_body_that_says_it_is_too_large_is_not_read(encoder: Encoder, path: str) -> None:
    app, sent = create_app(encoder, Settings(payload_limit=1000)), 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 100

    headers = {"content-length": str(10**9), "content-type": "application/json"}
    answer = post(app, path, None, json=None, content=body(), headers=headers)
    assert (answer.status_code, sent) == (413, 0)
    assert "1,000 bytes" in answer.text


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_a_body_that_grows_is_read_to_the_limit_only(encoder: Encoder, path: str) -> None:
    app, sent = create_app(encoder, Settings(payload_limit=1000)), 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 100

    answer = post(app, path, None, json=None, content=body(), headers={"content-type": "application/json"})
    assert (answer.status_code, sent) == (413, 11)
    assert app.state.service.traffic.at_work == 0


def test_a_body_at_the_limit_passes(encoder: Encoder) -> None:
    content = b'{"inputs": "a"}'
    headers = {"content-type": "application/json"}
    for limit, status in ((len(content), 200), (len(content) - 1, 413)):
        app = create_app(encoder, Settings(payload_limit=limit))
        assert post(app, "/embed", None, json=None, content=content, headers=headers).status_code == status


def test_more_requests_than_are_taken_get_429_and_may_come_again(encoder: Encoder, held: Held) -> None:
    app = create_app(encoder, Settings(max_concurrent_requests=2))
    held.free.clear()

    async def talk(client: httpx.AsyncClient) -> list[int]:
        first = [asyncio.create_task(client.post("/embed", json={"inputs": "a"})) for _ in range(2)]
        while app.state.service.traffic.at_work < 2:
            await asyncio.sleep(0.005)
        refused = await client.post("/v1/embeddings", json={"input": "a"})
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/health")).status_code == 200
        held.free.set()
        answers = [*await asyncio.gather(*first), await client.post("/embed", json={"inputs": "a"})]
        return [refused.status_code, *(answer.status_code for answer in answers)]

    assert asked(app, talk) == [429, 200, 200, 200]


@pytest.mark.parametrize(("path", "code"), [("/embed", None), ("/v1/embeddings", "timeout")])
def test_what_takes_too_long_is_a_504_and_leaves_the_queue(
    encoder: Encoder, held: Held, path: str, code: str | None
) -> None:
    app = create_app(encoder, Settings(timeout=0.2))
    batcher = app.state.service.batcher
    held.free.clear()

    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post(path, json={"input": "a", "inputs": "a"}) for _ in range(3)))

    answers = asked(app, talk)
    assert [answer.status_code for answer in answers] == [504] * 3
    assert "0.2 seconds" in answers[0].text
    if code:
        assert answers[0].json()["error"]["code"] == code
    assert batcher._texts == 0
    held.free.set()
    until(lambda: post(app, "/embed", {"inputs": "a"}).status_code == 200)


def test_further_routes_stand_behind_the_same_gate(encoder: Encoder) -> None:
    router = APIRouter()

    @router.get("/dim")
    async def dim(request: Request) -> Any:
        return request.app.state.service.encoder.dim

    app = create_app(encoder, routers=[router], key=b"secret")
    assert get(app, "/dim").status_code == 401
    assert get(app, "/dim", headers={"Authorization": "Bearer secret"}).json() == encoder.dim


@pytest.mark.parametrize("wrong", [{"kind": "poem"}, {"max_queue_texts": 0}, {"payload_limit": 0}, {"timeout": 0.0}])
def test_settings_that_cannot_be_carried_out_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Bearer secret")]], ids=["no key", "the key"])
def test_a_websocket_does_not_go_round_the_gate(encoder: Encoder, headers: list[tuple[bytes, bytes]]) -> None:
    router, reached, sent = APIRouter(), [], []

    @router.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        reached.append(socket)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/talk", "headers": headers, "query_string": b"", "subprotocols": []}
    asyncio.run(create_app(encoder, routers=[router], key=b"secret")(scope, receive, send))
    assert (reached, sent) == ([], [{"type": "websocket.close", "code": 1008}])


@pytest.mark.parametrize("path", ["/health", "/info", "/metrics", "/v1/models"])
def test_what_can_be_got_can_be_asked_for_without_its_body(encoder: Encoder, path: str) -> None:
    answer = asked(create_app(encoder), lambda client: client.head(path))
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/embed/", "/v1/embeddings/", "/info/"])
def test_nobody_is_sent_where_a_host_header_points(encoder: Encoder, path: str) -> None:
    app = create_app(encoder)
    for answer in (get(app, path, headers={"Host": "elsewhere.example"}), post(app, path)):
        assert (answer.status_code, "location" in answer.headers) == (404, False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("LOCALHOST.", 200),
        ("app.localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("192.168.0.7", 200),
        ("", 200),
        ("elsewhere.example", 403),
        ("localhost.elsewhere.example:8080", 403),
        ("127.0.0.1.elsewhere.example", 403),
    ],
)
def test_a_server_for_this_machine_alone_is_asked_by_no_other_name(encoder: Encoder, host: str, status: int) -> None:
    app = create_app(encoder, local=True)
    assert post(app, "/embed", {"inputs": "a"}, headers={"Host": host}).status_code == status
    assert get(app, "/v1/models", headers={"Host": host}).status_code == status
    assert get(app, "/health", headers={"Host": host}).status_code == 200
    assert get(create_app(encoder), "/v1/models", headers={"Host": host}).status_code == 200


def test_a_method_that_is_not_there_is_told_which_are(encoder: Encoder) -> None:
    answer = post(create_app(encoder), "/info")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(("whole", "answered"), [(True, 1), (False, 0)])
def test_what_was_answered_in_full_is_counted(whole: bool, answered: int) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": not whole})

    async def nothing(*_: Any) -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    traffic = Traffic()
    gate = Gate(inner, Settings(), None, traffic, lambda problem: None)
    asyncio.run(gate({"type": "http", "path": "/embed", "headers": []}, nothing, nothing))
    assert (traffic.at_work, traffic.accepted, traffic.answered) == (0, 1, answered)
