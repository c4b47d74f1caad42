"""HTTP's parser, and how much and how long it takes before there is a request: uvicorn bounds neither."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST = 64_000  # bytes that end no head and bring no part of a body: of a head, trailers, a chunk's extensions


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed where a request's head is too long, or is not there in the time that uvicorn leaves
    an unused connection.

    The parser puts a path and a header together piece by piece, again and again: a few MB without an end keep the
    server's only thread for seconds, and all headers are held, those behind a body too.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._since, self._came = 0, False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what comes, unless too much came for nothing."""
        self._came = False
        super().data_received(data)
        self._since = 0 if self._came else self._since + len(data)
        if self._since > _MOST and not self.transport.is_closing():
            self.send_400_response(f"more than {_MOST} bytes of headers")

    def on_message_begin(self) -> None:
        """Expect the rest of the head."""
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        """A head has come."""
        self._came = True
        self._stop()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body has come, which the application bounds."""
        self._came = True
        super().on_body(body)

    def _expect(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout_keep_alive, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # an answer to the request before is on its way
            self._expect()
