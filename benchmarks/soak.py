"""A server under load for long: every answer is held against the encoder's own vector of that very text, the memory of
the server is read on the way, and then it is stopped while all clients ask on.

The clients are those of `serving.py`, 64 of them in this process. An answer is lost where a client waits for it in
vain, mixed up where it is not the vector of the text that was asked for. After SIGTERM a client gets a right answer or
finds its connection closed; what the server says it answered is what clients have got.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import Figure, Report, parser, sample
from serving import Server, ask, server

CLOSE = 1e-5  # largest difference of a number that is the same vector
AFTER = 2.0  # seconds of load before the server is told to stop


def main() -> None:
    """Ask, stop, print, and write the JSON."""
    options = parser(__doc__, texts=2000, rounds=None)
    options.add_argument("--artifact", type=Path, required=True, help="folder that is served: an export, or a model")
    options.add_argument("--kind", default="query", choices=["query", "document"], help="which prompt the texts get")
    options.add_argument("--requests", type=int, default=100_000, help="answers to compare")
    options.add_argument("--clients", type=int, default=64, help="clients at once")
    given = options.parse_args()
    texts = list(dict.fromkeys(item.text for item in sample(given.texts, given.limit)))
    report = soak(given.artifact, texts, given.kind, given.threads, given.requests, given.clients)
    report.settings |= {"artifact": given.artifact.name, "threads": given.threads, "kind": given.kind}
    report.write(given.out)


def soak(folder: Path, texts: Sequence[str], kind: str, threads: int, requests: int, clients: int) -> Report:
    """Memory on the way, and what became of every request."""
    import emb

    expected = dict(zip(texts, emb.load(folder, threads=threads).encode(texts, kind=kind), strict=True))
    with server(folder, threads, kind) as found:
        load = Load(found, expected, requests // 50)
        began = time.perf_counter()
        asyncio.run(load.ask_all(islice(cycle(texts), requests), clients))
        load.note()
        seconds = time.perf_counter() - began
        told = asyncio.run(load.ask_until_stopped(cycle(texts), clients))
    settled = load.memory[len(load.memory) // 5 :]
    settings = {"texts": len(texts), "requests": requests, "clients": clients, "seconds": seconds}
    figures = [
        Figure("answers that are another text's, or none", load.seen["wrong"], 0, at_most=True),
        Figure("requests that got no answer before SIGTERM", requests - load.seen["before"], 0, at_most=True),
        Figure("memory at the end over that after a fifth", settled[-1]["mb"] / settled[0]["mb"], 1.05, at_most=True),
        Figure("answered after SIGTERM was sent", load.seen["after"]),
        Figure("accepted and not answered, of the server's own count", told["accepted"] - told["answered"], 0, True),
        Figure("answered by the server and not received", told["answered"] - load.received, 0, at_most=True),
        Figure("exit code", found.process.returncode, 0, at_most=True),
    ]
    return Report("soak", settings, figures=figures, rows=load.memory)


class Load:
    """Clients of one server, and how many answers they have seen: `before` it is told to stop, `then` and `after`, and
    how many of all were `wrong`.
    """

    def __init__(self, found: Server, expected: dict[str, Any], every: int) -> None:
        self.server, self.expected, self.every = found, expected, max(1, every)
        self.seen: Counter[str] = Counter()
        self.memory: list[dict[str, float]] = []
        self.stage = "before"

    @property
    def received(self) -> int:
        """All answers."""
        return self.seen.total() - self.seen["wrong"]

    async def ask_all(self, texts: Iterator[str], clients: int) -> None:
        """Ask for every text."""
        await asyncio.gather(*(self._client(texts) for _ in range(clients)))

    async def ask_until_stopped(self, texts: Iterator[str], clients: int) -> dict[str, int]:
        """Ask without end, stop the server in the middle of it, and return what it says of its work."""
        self.stage = "then"
        asking = asyncio.ensure_future(self.ask_all(texts, clients))
        await asyncio.sleep(AFTER)
        self.stage = "after"
        self.server.process.send_signal(signal.SIGTERM)
        await asking
        said, _ = await asyncio.to_thread(self.server.process.communicate)
        told: dict[str, int] = json.loads(said)
        return told

    async def _client(self, texts: Iterator[str]) -> None:
        where = urlsplit(self.server.address)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for text in texts:
            try:
                self._look(text, await ask(reader, writer, text))
            except (asyncio.IncompleteReadError, ConnectionError):
                if self.stage == "after":  # the connection was closed: the request was not accepted
                    break
                raise
        writer.close()

    def _look(self, text: str, body: bytes) -> None:
        coded = body.partition(b'"embedding":"')[2].partition(b'"')[0]
        vector, own = np.frombuffer(base64.b64decode(coded), "<f4"), self.expected[text]
        self.seen["wrong"] += vector.shape != own.shape or bool(np.abs(vector - own).max() > CLOSE)
        self.seen[self.stage] += 1
        if self.stage == "before" and self.seen["before"] % self.every == 0:
            self.note()

    def note(self) -> None:
        """The server's memory now."""
        self.memory.append({"answers": self.seen["before"], "mb": self.server.memory()})


if __name__ == "__main__":
    main()
