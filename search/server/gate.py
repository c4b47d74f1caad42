"""What a request passes before anything of it is read: the key, its size, how many are at work, and the time it may
take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emb.search.server.keys import allowed
from emb.search.server.problems import NO_KEY, OVERLOADED, TIMEOUT, TOO_LARGE, Problem, answer
from emb.search.server.settings import Settings

OPEN = ("/health", "/metrics")  # as with text-embeddings-inference: for those who watch the server
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
    ) -> None:
        self.app, self.settings, self.key, self.traffic, self.failed = app, settings, key, traffic, failed
        self.free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not; no WebSocket is let in."""
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
        if not allowed(self.key, headers):
            return Problem(NO_KEY, "the API key is missing or wrong: send it as `Authorization: Bearer KEY`")
        length = next((value for name, value in headers if name == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > self.settings.payload_limit:
            return self._too_large()
        if self.traffic.at_work >= self.settings.max_concurrent_requests:
            return Problem(OVERLOADED, f"{self.traffic.at_work} requests are at work, and no more are taken")
        return None

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, ended = False, False

        async def watched(message: Message) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        self.traffic.at_work += 1
        self.traffic.accepted += 1
        try:
            async with asyncio.timeout(self.settings.timeout):
                await self.app(scope, self._counted(receive), watched)
        except TimeoutError:
            if begun:
                raise
            message = f"no answer within {self.settings.timeout:g} seconds"
            await self._refuse(scope, receive, watched, Problem(TIMEOUT, message))
        finally:
            self.traffic.at_work -= 1
            self.traffic.answered += ended

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.settings.payload_limit:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> Problem:
        return Problem(TOO_LARGE, f"the body is larger than the {self.settings.payload_limit:,} bytes that are taken")

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
        self.failed(problem)
        response = answer(scope["path"], problem)
        response.headers["Connection"] = "close"  # what is left of the body is not read
        await response(scope, receive, send)
