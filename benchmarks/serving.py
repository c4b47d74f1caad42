"""Serving: `emb serve` asked by 1, 8 and 64 clients of another process, and the encoder's own throughput on the same
texts.

Each client sends one text at a time to `/v1/embeddings` and waits for its vector, in base64 as OpenAI's client asks
for it. Server and clients share the machine's cores, as on one host; the clients therefore speak HTTP over bare
sockets, which costs least. The encoder runs in this process while the server is idle: all texts in one call, and one
by one.

Where other work shares the machine, texts per second say as much about that as about the server. So the processor's
time for a text is told as well: of the encoder alone, of the server, of the clients. Encoder over server and clients is
the share that is reached on a machine with all its cores at work.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

from common import Figure, Report, Series, interleave, parser, ratio, sample

CLIENTS = (1, 8, 64)
ENCODER = "encoder, all texts at once"
CLIENT = "the clients"
Delays = list[float]


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=500)
    options.add_argument("--artifact", type=Path, required=True, help="folder that is served: an export, or a model")
    options.add_argument("--kind", default="query", choices=["query", "document"], help="which prompt the texts get")
    given = options.parse_args()
    texts = [item.text for item in sample(given.texts, given.limit)]
    with server(given.artifact, given.threads, given.kind) as found:
        report = measure(given.artifact, found, texts, given.kind, given.threads, given.rounds)
    report.settings |= {"artifact": given.artifact.name, "threads": given.threads, "kind": given.kind}
    report.write(given.out)


@dataclass(frozen=True)
class Server:
    """`emb serve` in a process of its own, and where it listens."""

    process: subprocess.Popen[str]
    address: str

    def processor(self) -> float:
        """Seconds of the processor that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MB of memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def measure(folder: Path, found: Server, texts: Sequence[str], kind: str, threads: int, rounds: int) -> Report:
    """Throughput of the encoder and of the server, interleaved, and the delays that clients saw."""
    import emb

    encoder = emb.load(folder, threads=threads)
    encode = partial(encoder.encode, kind=kind)
    delays: dict[int, Delays] = {count: [] for count in CLIENTS}
    used = Used()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        contenders: dict[str, Callable[[], float]] = {
            ENCODER: lambda: used.here(lambda: rate(lambda: encode(texts), len(texts))),
            "encoder, one by one": lambda: rate(lambda: [encode(text) for text in texts], len(texts)),
        }
        for count in CLIENTS:
            contenders[_name(count)] = partial(served, other, found, texts, count, delays[count], used)
        rates = interleave(contenders, rounds)
    processor = {name: [1000 * each / len(texts) for each in seconds[1:]] for name, seconds in used.seconds.items()}
    series = [Series(name, "texts/s", found) for name, found in rates.items()]
    series += [
        Series(f"{_name(count)}, {point}", "ms", values)
        for count in CLIENTS
        for point, values in points(delays[count], len(texts)).items()
    ]
    series += [Series(f"{name}, processor", "ms/text", values) for name, values in processor.items()]
    aims = dict.fromkeys(CLIENTS) | {64: 0.8}
    figures = [
        Figure(f"{_name(count)} / {ENCODER}: texts/s", ratio(rates[_name(count)], rates[ENCODER]), aims[count])
        for count in CLIENTS
    ]
    both = median(processor[_name(64)]) + median(processor[CLIENT])
    figures.append(Figure("64 clients / encoder, by processor time", median(processor[ENCODER]) / both, 0.8))
    tokens = sum(map(len, encoder.tokenizer.encode(texts, encoder.prompt(kind)))) / len(texts)
    return Report("serving", {"texts": len(texts), "tokens_per_text": tokens}, series, figures)


def rate(work: Callable[[], object], texts: int) -> float:
    """Texts per second."""
    began = time.perf_counter()
    work()
    return texts / (time.perf_counter() - began)


class Used:
    """Seconds of the processor by who used them, a value for each round, the first of which is not measured."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        """Note what one round took."""
        self.seconds.setdefault(name, []).append(seconds)

    def here(self, work: Callable[[], float]) -> float:
        """What `work` comes to, which the encoder does in this process."""
        began = time.process_time()
        found = work()
        self.add(ENCODER, time.process_time() - began)
        return found


def served(
    other: ProcessPoolExecutor, server: Server, texts: Sequence[str], count: int, delays: Delays, used: Used
) -> float:
    """Texts per second that `count` clients get from the server; the seconds that each text took go into `delays`."""
    began = server.processor()
    seconds, found, client = other.submit(ask_all, server.address, texts, count).result()
    used.add(_name(count), server.processor() - began)
    if count == max(CLIENTS):
        used.add(CLIENT, client)
    delays += found
    return len(texts) / seconds


def points(delays: Sequence[float], texts: int) -> dict[str, list[float]]:
    """Milliseconds, p50 and p95, of each measured round; the first is not."""
    rounds = [delays[start : start + texts] for start in range(texts, len(delays), texts)]
    cuts = [quantiles([1000 * each for each in found], n=20, method="inclusive") for found in rounds]
    return {"p50": [cut[9] for cut in cuts], "p95": [cut[18] for cut in cuts]}


@contextmanager
def server(folder: Path, threads: int, kind: str) -> Iterator[Server]:
    """`emb serve` on a free port, until the block ends."""
    command = [sys.executable, "-m", "emb.cli", "serve", str(folder), "--port", "0", "--threads", str(threads)]
    command += ["--kind", kind, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "is served on" in line)
        yield Server(process, next(word for word in line.split() if word.startswith("http://")))
    finally:
        process.terminate()
        process.wait()


def ask_all(address: str, texts: Sequence[str], count: int) -> tuple[float, Delays, float]:
    """Ask for every text by `count` clients at once: seconds for all, for each, and of the processor."""
    began = time.process_time()
    return *asyncio.run(_ask_all(address, texts, count)), time.process_time() - began


async def _ask_all(address: str, texts: Sequence[str], count: int) -> tuple[float, Delays]:
    where, left, delays = urlsplit(address), iter(texts), Delays()

    async def client() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for text in left:
            began = time.perf_counter()
            await ask(reader, writer, text)
            delays.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(count)))
    return time.perf_counter() - began, delays


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> bytes:
    """The body of the answer to one text.

    Raises:
        IncompleteReadError: the server has closed the connection.
    """
    body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert answer.startswith(b"http/1.1 200"), answer
    length = next(line for line in answer.splitlines() if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.split(b":")[1]))


def _name(count: int) -> str:
    return f"{count} client{'s' * (count > 1)}"


if __name__ == "__main__":
    main()
