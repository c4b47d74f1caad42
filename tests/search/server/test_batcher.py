"""The queue: every text gets its own vector, whoever else is served, fails, or goes away."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from searchable import Searchable
from serving import Held, asked, listening, post, until

from emb.runtime.encoder import Encoder, load
from emb.search.server.app import create_app
from emb.search.server.batcher import Batcher
from emb.search.server.metrics import Metrics
from emb.search.server.problems import OVERLOADED, STOPPING, Problem
from emb.search.server.settings import Settings


@pytest.fixture(scope="module")
def encoder(student_folder: Path) -> Encoder:
    return load(student_folder, threads=1)


@pytest.fixture
def held(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Held:
    found = Held(encoder)
    monkeypatch.setattr(encoder, "encode_ids", found)
    return found


@pytest.mark.parametrize("threads", [1, 3])
def test_64_clients_get_the_vector_of_their_own_text(
    searchable: Searchable, sentences: list[str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(searchable.exports["2x32"], threads=threads)
    held = Held(encoder)
    monkeypatch.setattr(encoder, "encode_ids", held)
    chance = random.Random(0)
    texts = [" ".join(chance.choices(" ".join(sentences).split(), k=chance.randint(1, 30))) for _ in range(2560)]
    expected = {kind: encoder.encode(texts, kind=kind) for kind in ("query", "document")}
    held.batches.clear()
    worst: list[float] = []

    async def one(client: httpx.AsyncClient, number: int) -> None:
        for place in range(number, len(texts), 64):
            kind = ("query", "document")[place % 2]
            some = texts[place : place + 1 + place % 3]
            answer = await client.post("/embed", json={"inputs": some, "prompt_name": kind})
            assert answer.status_code == 200
            worst.append(np.abs(np.array(answer.json()) - expected[kind][place : place + len(some)]).max())

    async def talk(client: httpx.AsyncClient) -> None:
        await asyncio.gather(*(one(client, number) for number in range(64)))

    asked(create_app(encoder), talk)
    print(f"{len(worst)} requests in {len(held.batches)} batches, max difference {max(worst):.1e}")
    assert len(worst) == len(texts)
    assert max(worst) < 1e-6
    assert len(held.batches) < len(texts) / 2  # they were put together
    assert (held.beside > 0) is (threads > 1)


def _settled(batcher: Batcher, rows: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(batcher.vectors(rows))


def _batcher(encode: Any, beside: Any = None, workers: int = 1, **limits: Any) -> Batcher:
    return Batcher(encode, Settings(**limits), Metrics(), beside=beside, workers=workers)


def _row(*ids: int) -> Any:
    return np.array(ids)


class Slow:
    """Vectors that are the first ids; the first call waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()

    def __call__(self, rows: Any) -> Any:
        self.batches.append([int(row[0]) for row in rows])
        assert self.free.wait(20)
        if any(row[0] == 13 for row in rows):
            raise RuntimeError("unlucky")
        return np.array([[float(row[0])] for row in rows], np.float32)

    async def entered(self) -> None:
        while not self.batches:
            await asyncio.sleep(0.005)


def test_requests_take_turns_text_by_text_within_the_limits() -> None:
    slow = Slow()
    batcher = _batcher(slow, max_batch_requests=3, max_batch_tokens=5)

    async def go() -> list[Any]:
        tasks = [_settled(batcher, [_row(1)])]
        await slow.entered()
        tasks += [
            _settled(batcher, [_row(10), _row(11), _row(12), _row(14)]),
            _settled(batcher, [_row(20)]),
            _settled(batcher, [_row(30, 0, 0, 0, 0, 0, 0), _row(31)]),
        ]
        await asyncio.sleep(0.05)
        slow.free.set()
        return [(await task).vectors[:, 0].tolist() for task in tasks]

    assert asyncio.run(asyncio.wait_for(go(), 20)) == [[1], [10, 11, 12, 14], [20], [30, 31]]
    # A text beyond the limit of tokens goes alone; the short request does not wait for the long one before it.
    assert slow.batches == [[1], [10, 20, 11], [30], [12, 31, 14]]
    batcher.close()


def test_texts_of_like_length_go_together_and_the_oldest_is_never_passed_over() -> None:
    slow = Slow()
    batcher = _batcher(slow, max_batch_requests=2)
    lengths = [5, 1, 6, 2, 5, 1, 2]

    async def go() -> None:
        first = _settled(batcher, [_row(9)])
        await slow.entered()
        rest = [_settled(batcher, [_row(number, *[0] * (length - 1))]) for number, length in enumerate(lengths)]
        await asyncio.sleep(0.05)
        slow.free.set()
        await asyncio.gather(first, *rest)

    asyncio.run(asyncio.wait_for(go(), 20))
    assert slow.batches == [[9], [0, 4], [1, 5], [2, 3], [6]]
    batcher.close()


def test_padding_counts_in_the_tokens_of_a_batch() -> None:
    slow = Slow()
    batcher = _batcher(slow, max_batch_tokens=9)

    async def go() -> None:
        first = _settled(batcher, [_row(9)])
        await slow.entered()
        rest = [_settled(batcher, [_row(number, *[0] * length)]) for number, length in enumerate((2, 3, 2, 2))]
        await asyncio.sleep(0.05)
        slow.free.set()
        await asyncio.gather(first, *rest)

    asyncio.run(asyncio.wait_for(go(), 20))
    assert slow.batches == [[9], [0, 2, 3], [1]]  # 3 texts of 3 tokens; the fourth would make it 4 of 4
    batcher.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_whose_thread_has_died_says_so() -> None:
    def dies(rows: Any) -> Any:
        raise SystemExit

    batcher = _batcher(dies)
    assert batcher.healthy
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(batcher.vectors([_row(1)]), 0.5))
    batcher._threads[0].join(20)
    assert not batcher.healthy


def test_a_text_that_breaks_the_encoder_harms_no_other_request() -> None:
    slow = Slow()
    batcher = _batcher(slow)

    async def go() -> list[Any]:
        tasks = [_settled(batcher, [_row(1)])]
        await slow.entered()
        tasks += [_settled(batcher, [_row(2)]), _settled(batcher, [_row(3), _row(13)]), _settled(batcher, [_row(4)])]
        await asyncio.sleep(0.05)
        slow.free.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        return [each if isinstance(each, Exception) else each.vectors.tolist() for each in found]

    first, second, third, fourth = asyncio.run(asyncio.wait_for(go(), 20))
    assert (first, second, fourth) == ([[1]], [[2]], [[4]])
    assert isinstance(third, RuntimeError)
    batcher.close()


@pytest.mark.parametrize("limits", [{"max_queue_texts": 3}, {"max_queue_tokens": 6}])
def test_a_full_queue_takes_no_more_and_an_empty_one_takes_anything(limits: dict[str, int]) -> None:
    slow = Slow()
    batcher = _batcher(slow, **limits)

    async def go() -> None:
        first = _settled(batcher, [_row(1)])
        await slow.entered()
        large = _settled(batcher, [_row(number, 0) for number in range(20, 29)])
        await asyncio.sleep(0.01)
        with pytest.raises(Problem) as caught:
            await batcher.vectors([_row(2)])
        assert caught.value.kind is OVERLOADED
        slow.free.set()
        await asyncio.gather(first, large)
        await asyncio.gather(*(batcher.vectors([_row(number, 0)]) for number in range(3)))

    asyncio.run(asyncio.wait_for(go(), 20))
    assert batcher._texts == batcher._tokens == 0
    batcher.close()


def test_a_request_given_up_leaves_the_queue_and_is_not_encoded() -> None:
    slow = Slow()
    batcher = _batcher(slow)

    async def go() -> list[Any]:
        first = _settled(batcher, [_row(1)])
        await slow.entered()
        gone, kept = _settled(batcher, [_row(2), _row(3)]), _settled(batcher, [_row(4)])
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        assert batcher._texts == 1
        slow.free.set()
        return [(await first).vectors.tolist(), (await kept).vectors.tolist()]

    assert asyncio.run(asyncio.wait_for(go(), 20)) == [[[1]], [[4]]]
    assert slow.batches == [[1], [4]]
    batcher.close()


def test_closing_finishes_what_was_taken_and_takes_no_more() -> None:
    slow = Slow()
    batcher = _batcher(slow, max_batch_requests=1)

    async def go() -> list[Any]:
        tasks = [_settled(batcher, [_row(number), _row(number)]) for number in range(5)]
        await slow.entered()
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.02)
        with pytest.raises(Problem) as caught:
            await batcher.vectors([_row(9)])
        assert caught.value.kind is STOPPING
        slow.free.set()
        await closing
        return [(await task).vectors.tolist() for task in tasks]

    assert asyncio.run(asyncio.wait_for(go(), 20)) == [[[number], [number]] for number in range(5)]
    assert not batcher.healthy


class Crowd:
    """Two ways to compute: which batches went by which, and how many at once; all wait until they are let go."""

    def __init__(self) -> None:
        self.free, self.lock = threading.Event(), threading.Lock()
        self.whole: list[int] = []
        self.beside: list[int] = []
        self.at_once = self.most = 0

    def by_all(self, rows: Any) -> Any:
        self.whole.append(len(rows))
        return self._vectors(rows)

    def by_one(self, rows: Any) -> Any:
        self.beside.append(len(rows))
        return self._vectors(rows)

    def _vectors(self, rows: Any) -> Any:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        assert self.free.wait(20)
        with self.lock:
            self.at_once -= 1
        return np.array([[float(row[0])] for row in rows], np.float32)


def _crowd(waiting: int) -> tuple[Crowd, list[list[float]]]:
    """What becomes of a text, and of so many that come while it is computed."""
    crowd = Crowd()
    batcher = _batcher(crowd.by_all, crowd.by_one, 2)

    async def go() -> list[list[float]]:
        tasks = [_settled(batcher, [_row(1)])]
        while not crowd.whole:
            await asyncio.sleep(0.005)
        tasks += [_settled(batcher, [_row(2 + number)]) for number in range(waiting)]
        await asyncio.sleep(0.05)
        while waiting > 1 and not crowd.beside:
            await asyncio.sleep(0.005)
        crowd.free.set()
        return [(await task).vectors[:, 0].tolist() for task in tasks]

    found = asyncio.run(asyncio.wait_for(go(), 20))
    batcher.close()
    return crowd, found


def test_a_crowd_gets_a_thread_beside_the_one_that_computes() -> None:
    crowd, found = _crowd(20)
    assert found == [[1 + number] for number in range(21)]
    assert crowd.most == 2
    assert crowd.beside[0] == 10, "half of what waits is left to the other thread"
    assert sum(crowd.whole) + sum(crowd.beside) == 21


def test_fewer_texts_than_threads_wait_for_the_whole_encoder() -> None:
    crowd, found = _crowd(1)
    assert found == [[1], [2]]
    assert (crowd.whole, crowd.beside, crowd.most) == ([1, 1], [], 1)


@pytest.mark.parametrize(
    ("waiting", "computed", "share"), [(1, [8], 1), (5, [4], 3), (10, [40], 13), (40, [], 20), (90, [], 32)]
)
def test_batches_grow_with_the_crowd(waiting: int, computed: list[int], share: int) -> None:
    batcher = _batcher(Slow(), Slow(), 2)
    batcher._texts, batcher._computed = waiting, computed
    assert batcher._share == share


def test_one_request_spread_over_threads_is_answered_in_its_order() -> None:
    crowd = Crowd()
    crowd.free.set()
    batcher = _batcher(crowd.by_all, crowd.by_one, 4, max_batch_requests=8)
    rows = [_row(number) for number in range(500)]
    found = asyncio.run(asyncio.wait_for(batcher.vectors(rows), 20))
    assert found.vectors[:, 0].tolist() == list(range(500))
    batcher.close()


def test_closing_with_several_threads_ends_all_of_them_though_the_last_request_goes_away() -> None:
    crowd = Crowd()
    batcher = _batcher(crowd.by_all, crowd.by_one, 3)

    async def go() -> None:
        first = _settled(batcher, [_row(1)])
        while not crowd.whole:
            await asyncio.sleep(0.005)
        gone = _settled(batcher, [_row(2)])
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0.01)
        crowd.free.set()
        await asyncio.gather(closing, first)

    asyncio.run(asyncio.wait_for(go(), 20))
    assert not any(thread.is_alive() for thread in batcher._threads)


def test_a_client_that_hangs_up_loses_nothing_for_the_others(encoder: Encoder, held: Held) -> None:
    app = create_app(encoder)
    expected = encoder.encode(["the cat", "the rain"])
    held.batches.clear()
    held.free.clear()
    with listening(app) as address:
        found: list[Any] = []
        stays = threading.Thread(
            target=lambda: found.append(httpx.post(f"{address}/embed", json={"inputs": ["the cat", "the rain"]}))
        )
        first = threading.Thread(target=lambda: httpx.post(f"{address}/embed", json={"inputs": "a"}))
        first.start()
        until(lambda: held.batches)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/embed", json={"inputs": ["who", "has", "gone"]}, timeout=0.2)
        stays.start()
        until(lambda: app.state.service.batcher._texts == 2)  # the three texts have left
        held.free.set()
        stays.join(20)
        first.join(20)
    np.testing.assert_allclose(found[0].json(), expected, atol=1e-6)
    assert list(map(len, held.batches)) == [1, 2]


def test_a_full_queue_is_a_429(encoder: Encoder, held: Held) -> None:
    app = create_app(encoder, Settings(max_queue_texts=2))
    held.free.clear()

    async def talk(client: httpx.AsyncClient) -> list[int]:
        tasks = [asyncio.create_task(client.post("/embed", json={"inputs": "a"}))]
        while not held.batches or app.state.service.batcher._texts:
            await asyncio.sleep(0.005)
        tasks += [asyncio.create_task(client.post("/embed", json={"inputs": ["a", "b"]}))]
        while app.state.service.batcher._texts < 2:
            await asyncio.sleep(0.005)
        refused = await client.post("/embed", json={"inputs": "a"})
        assert refused.json()["error_type"] == "Overloaded"
        held.free.set()
        return [refused.status_code, *(answer.status_code for answer in await asyncio.gather(*tasks))]

    held.batches.clear()
    assert asked(app, talk) == [429, 200, 200]


def test_vectors_that_are_no_floats_are_not_served(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = encoder.encode_ids
    monkeypatch.setattr(encoder, "encode_ids", lambda rows, **options: inner(rows, **options).astype(np.int8))
    with pytest.raises(Exception, match="int8"):
        create_app(encoder)
    monkeypatch.undo()
    assert post(create_app(encoder), "/embed", {"inputs": "a"}).status_code == 200
