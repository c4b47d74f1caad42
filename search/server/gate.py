"""What a request passes before anything of it is read: the key, its size, how many are at work, and the time it may
take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emb.search.server.hosts import is_local
from emb.search.server.keys import allowed
from emb.search.server.problems import FOREIGN, NO_KEY, OVERLOADED, PACKED, TIMEOUT, TOO_LARGE, Problem, answer
from emb.search.server.settings import Settings

OPEN = ("/health", "/metrics")  # as with text-embeddings-inference: for those who watch the server
_FOREIGN = (
    "this server is for this machine alone, and was asked by a name that may be a web page's: ask it as localhost, let"
    " a proxy send `Host: localhost`, or start the server with a key"
)
_POLICY = 1008  # of RFC 6455: a connection that the server's rules do not allow


class Traffic:
    """Requests at work now, those let in since the start, and those of them that were answered in full."""

    def __init__(self) -> None:
        self.at_work = self.accepted = self.answered = 0


class Gate:
    """An ASGI application around another; of a body that is too large, no more than the limit is ever held."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        key: bytes | None,
        traffic: Traffic,
        failed: Callable[[Problem], None],
        free: Collection[str] = OPEN,
        *,
        local: bool = False,
    ) -> None:
        self.app, self.settings, self.key, self.traffic, self.failed = app, settings, key, traffic, failed
        self.free, self.local = free, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not; no WebSocket is let in."""
        if scope.get("method") == "HEAD":  # as a GET, whose answer's body the HTTP server leaves out
            scope, send = {**scope, "method": "GET"}, _bodiless(send)
        if scope["type"] == "websocket":
            # Before it is accepted: a 403. What streams for hours has no body to measure and no time to keep.
            await send({"type": "websocket.close", "code": _POLICY})
        elif scope["type"] != "http" or scope["path"] in self.free:
            await self.app(scope, receive, send)
        elif problem := self._objection(scope):
            await self._refuse(scope, receive, send, problem)
        else:
            await self._pass(scope, receive, send)

    def _objection(self, scope: Scope) -> Problem | None:
        headers = scope["headers"]
        named = dict(headers)
        if not allowed(self.key, headers):
            return Problem(NO_KEY, "the API key is missing or wrong: send it as `Authorization: Bearer KEY`")
        if self.local and not is_local(named.get(b"host", b"")):
            return Problem(FOREIGN, _FOREIGN)
        if (packed := named.get(b"content-encoding", b"identity").lower()) != b"identity":
            return Problem(PACKED, f"a body in {packed.decode('latin-1')} is not unpacked: send it as it is")
        length = named.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.settings.payload_limit:
            return _too_large(self.settings.payload_limit)
        if self.traffic.at_work >= self.settings.max_concurrent_requests:
            return Problem(OVERLOADED, f"{self.traffic.at_work} requests are at work, and no more are taken")
        return None

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, ended = False, False
        body = _Body(scope, receive, self.settings.payload_limit)

        async def watched(message: Message) -> None:
            nonlocal begun, ended
            if not begun and body.unread:
                message = _closing(message)
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        self.traffic.at_work += 1
        self.traffic.accepted += 1
        try:
            async with asyncio.timeout(self.settings.timeout):
                await self.app(scope, body.receive, watched)
        except TimeoutError:
            if begun:
                raise
            message = f"no answer within {self.settings.timeout:g} seconds"
            await self._refuse(scope, receive, watched, Problem(TIMEOUT, message))
        finally:
            self.traffic.at_work -= 1
            self.traffic.answered += ended

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
        self.failed(problem)

        async def closing(message: Message) -> None:
            await send(_closing(message))

        await answer(scope["path"], problem)(scope, receive, closing)


class _Body:
    """A request's body on its way in, of which no more than the limit is taken.

    What is left `unread` when the answer begins would otherwise be read and thrown away for as long as the client
    sends: the connection is closed instead.
    """

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._size = receive, limit, 0
        named = dict(scope["headers"])
        self.unread = b"transfer-encoding" in named or named.get(b"content-length", b"0") != b"0"

    async def receive(self) -> Message:
        """The next part.

        Raises:
            Problem: it goes beyond the limit.
        """
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self.unread = self.unread and message.get("more_body", False)
        if self._size > self._limit:
            raise _too_large(self._limit)
        return message


def _closing(message: Message) -> Message:
    """The start of an answer that is the connection's last; any other message as it is."""
    if message["type"] != "http.response.start":
        return message
    others = [(name, value) for name, value in message.get("headers", ()) if name != b"connection"]
    return {**message, "headers": [*others, (b"connection", b"close")]}


def _bodiless(send: Send) -> Send:
    async def sent(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sent


def _too_large(limit: int) -> Problem:
    return Problem(TOO_LARGE, f"the body is larger than the {limit:,} bytes that are taken")
