"""Texts of many requests through one encoder: a bounded queue, threads that empty it, and each vector back to the
request that its text came with.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice, repeat, zip_longest

import numpy as np

from emb.search.server.metrics import Metrics
from emb.search.server.problems import OVERLOADED, STOPPING, Problem
from emb.search.server.settings import Settings
from emb.similarity import Vectors
from emb.tokens import Rows

Encode = Callable[[Rows], Vectors]
_LOOKED_AT = 4  # batches' worth of waiting texts, of which those of like length are put together


@dataclass(frozen=True)
class Vectorised:
    """A request's vectors `(texts, dim)`, and the seconds it waited for the encoder and was with it."""

    vectors: Vectors
    waited: float
    computed: float


class _Job:
    """One request's texts; the places of those that are neither with the encoder nor done are `left`."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.vectors, self.done = rows, [np.empty(0)] * len(rows), 0
        self.left = list(range(len(rows)))
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Vectorised] = self.loop.create_future()
        self.entered = self.begun = time.perf_counter()

    def take(self, place: int) -> int:
        """Hand the text at `place` over; the tokens it has."""
        if len(self.left) == len(self.rows):
            self.begun = time.perf_counter()
        self.left.remove(place)
        return len(self.rows[place])

    def put(self, place: int, vector: Vectors) -> Vectorised | None:
        """Take the vector of one text; with the last, the answer."""
        self.vectors[place] = vector
        self.done += 1
        if self.done < len(self.rows):
            return None
        return Vectorised(np.stack(self.vectors), self.begun - self.entered, time.perf_counter() - self.begun)

    def settle(self, found: Vectorised | Exception) -> None:
        """Give the answer, on the loop's own thread."""
        if self.future.done():  # a client that has gone, or an error that came first
            return
        if isinstance(found, Exception):
            self.future.set_exception(found)
        else:
            self.future.set_result(found)


Batch = list[tuple[_Job, int]]  # texts, as the requests they are of and their places there


class Batcher:
    """A queue before an encoder.

    Requests take turns, a text each: a query is not kept waiting behind the thousand texts of another request. A batch
    is the text whose turn it is, and of those that wait behind it the ones nearest to it in length, because every text
    of a batch costs as much as its longest. Nothing ever waits for a batch to fill.

    A batch alone has the whole encoder, and the next one comes after it. In a crowd each of `workers` threads computes
    batches of its own: threads that share one wait for each other at its end.
    """

    def __init__(
        self, encode: Encode, settings: Settings, metrics: Metrics, *, beside: Encode | None = None, workers: int = 1
    ) -> None:
        """A queue before `encode`; before `beside` in a crowd, which computes on the thread that calls it and may be
        called by several at once.
        """
        self.encode, self.settings, self.metrics = encode, settings, metrics
        self.beside, self.workers = beside or encode, workers if beside else 1
        self._jobs: deque[_Job] = deque()
        self._texts = self._tokens = 0
        self._state = threading.Condition()
        self._closed = False
        self._computed = list[int]()  # texts of each batch that is with a thread
        self._threads: list[threading.Thread] = []

    @property
    def healthy(self) -> bool:
        """Whether texts are taken, and no thread that encodes them has died."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    async def vectors(self, rows: Rows) -> Vectorised:
        """The vectors of tokenised texts, in their order.

        Raises:
            Problem: too much is waiting, or the server is stopping.
        """
        job = _Job(rows)
        self._enter(job)
        try:
            return await job.future
        finally:
            self._leave(job)

    def close(self) -> None:
        """Encode what has been taken, and take no more."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        for thread in self._threads:
            thread.join()

    def _enter(self, job: _Job) -> None:
        tokens = sum(map(len, job.rows))
        with self._state:
            if self._closed:
                raise Problem(STOPPING, "the server is stopping")
            if self._full(len(job.rows), tokens):
                raise Problem(OVERLOADED, f"{self._texts:,} texts are waiting, and no more are taken")
            if not self._threads:
                self._start()
            self._jobs.append(job)
            self._count(len(job.rows), tokens)
            self._state.notify()

    def _start(self) -> None:
        for _ in range(self.workers):
            self._threads.append(threading.Thread(target=self._work, name="encoder", daemon=True))
            self._threads[-1].start()

    def _full(self, texts: int, tokens: int) -> bool:
        # An empty queue takes any request: one that is larger than the queue would be refused for ever.
        return self._texts > 0 and (
            self._texts + texts > self.settings.max_queue_texts
            or self._tokens + tokens > self.settings.max_queue_tokens
        )

    def _leave(self, job: _Job) -> None:
        """Take out what is left of a request that waits no longer: its client has gone, its time is over."""
        with self._state:
            if job.left:
                self._jobs.remove(job)
                self._count(-len(job.left), -sum(len(job.rows[place]) for place in job.left))

    def _count(self, texts: int, tokens: int) -> None:
        self._texts += texts
        self._tokens += tokens
        self.metrics.waiting.set(self._texts)

    def _work(self) -> None:
        while taken := self._next():
            try:
                self._answer(*taken)
            finally:
                with self._state:
                    self._computed.remove(len(taken[0]))

    def _next(self) -> tuple[Batch, Encode] | None:
        """The texts to encode next, and by what; None where the queue is closed and empty."""
        with self._state:
            self._state.wait_for(lambda: self._wanted or (self._closed and not self._jobs))
            if not self._jobs:
                self._state.notify_all()  # nothing more comes for the others either
                return None
            batch = self._chosen(self._share)
            tokens = sum(job.take(place) for job, place in batch)
            self._jobs.rotate(-1)  # the next turn is another request's
            self._jobs = deque(job for job in self._jobs if job.left)
            self._count(-len(batch), -tokens)
            self._computed.append(len(batch))
            encode = self.beside if len(self._computed) > 1 or self._crowded else self.encode
            self._state.notify(int(self._crowded))  # one more thread for what is left
        self.metrics.batch(len(batch), tokens)
        return batch, encode

    @property
    def _wanted(self) -> bool:
        """Whether there is work for one more thread."""
        return bool(self._jobs) and (not self._computed or self._crowded)

    @property
    def _crowded(self) -> bool:
        """Whether a text waits for each thread: apart, they then compute more than together."""
        return self._texts >= self.workers > 1

    @property
    def _share(self) -> int:
        """Texts of a batch: in a crowd, one thread's share of those that wait, and at least half of its share of all
        that are here; batches grow with the crowd, whatever is left of it at the moment.
        """
        here = self._texts + sum(self._computed)
        share = max(-(-self._texts // self.workers), -(-here // (2 * self.workers))) if self._crowded else self._texts
        return min(share, self.settings.max_batch_requests)

    def _chosen(self, most: int) -> Batch:
        """The text whose turn it is, and those like it, at `most` so many."""
        turns = zip_longest(*(zip(repeat(job), job.left) for job in self._jobs))
        waiting = (each for each in chain.from_iterable(turns) if each is not None)
        seen = list(islice(waiting, _LOOKED_AT * self.settings.max_batch_requests))
        size = [len(job.rows[place]) for job, place in seen]
        near = sorted(range(len(seen)), key=lambda index: abs(size[index] - size[0]))
        batch: Batch = []
        longest = 0
        for index in near[:most]:
            longest = max(longest, size[index])
            if batch and longest * (len(batch) + 1) > self.settings.max_batch_tokens:
                break
            batch.append(seen[index])
        return batch

    def _answer(self, batch: Batch, encode: Encode) -> None:
        try:
            vectors = encode([job.rows[place] for job, place in batch])
        except Exception as error:  # of whatever library computes
            self._one_by_one(batch, encode, error)
            return
        with self._state:  # texts of one request may be with several threads
            found = [(job, job.put(place, vector)) for (job, place), vector in zip(batch, vectors, strict=True)]
        _settle([(job, answer) for job, answer in found if answer is not None])

    def _one_by_one(self, batch: Batch, encode: Encode, error: Exception) -> None:
        """Answer a batch that failed request by request: what one text did must not fall on the others."""
        jobs = dict.fromkeys(job for job, _ in batch)
        if len(jobs) == 1:
            _settle([(batch[0][0], error)])
            return
        for each in jobs:
            self._answer([(job, place) for job, place in batch if job is each], encode)


def _settle(answers: Sequence[tuple[_Job, Vectorised | Exception]]) -> None:
    """Give all answers of a batch to each event loop at once.

    One by one, the loop would wake at the first and hold the interpreter while it writes that answer, and the thread of
    the encoder would wait with the next: a core idle for as long as the batch's answers take.
    """
    for loop in dict.fromkeys(job.loop for job, _ in answers):

        def settle(loop: asyncio.AbstractEventLoop = loop) -> None:
            for job, found in answers:
                if job.loop is loop:
                    job.settle(found)

        with suppress(RuntimeError):  # a loop that has ended: nobody waits
            loop.call_soon_threadsafe(settle)
