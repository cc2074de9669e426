"""The decode pool and the inference lane: order, deadlines, cancelled and failing neighbours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from oodserve.engines import Outputs
from oodserve.errors import DeadlineExceeded, EngineError
from server.inference import Deadline, DecodePool, InferenceLane
from server.metrics import Metrics

T = TypeVar("T")


class Gate:
    """A fake engine: answers with each image's first byte, and can be made to wait or to fail."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.has_started = threading.Event()
        self.seen: list[int] = []

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        first = images[:, 0, 0, 0]
        self.seen += first.tolist()
        self.has_started.set()
        assert self.is_open.wait(timeout=10)
        if 255 in first:
            raise EngineError("the engine does not like 255")
        return {"logits": first.astype(np.float32)[:, np.newaxis]}


class Bench:
    """A lane over a gate, with its metrics."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.lane = InferenceLane(self.gate.infer, model="m", metrics=self.metrics)

    def infer(self, *values: int, seconds: float = 10.0) -> Awaitable[Outputs]:
        return self.lane.infer(images_of(*values), deadline=Deadline(seconds))

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def images_of(*values: int) -> NDArray[np.uint8]:
    return np.stack([np.full((2, 2, 3), value, dtype=np.uint8) for value in values])


def answers(outputs: Outputs) -> list[float]:
    return [float(value) for value in outputs["logits"][:, 0]]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.gate.is_open.set()
    bench.lane.close()


async def _started(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.has_started.wait, 10)


def test_each_request_gets_the_answers_to_its_own_images_in_order(bench: Bench) -> None:
    async def run() -> list[Outputs]:
        return await asyncio.gather(*(bench.infer(i, i + 100) for i in range(40)))

    results = asyncio.run(run())

    assert [answers(outputs) for outputs in results] == [[i, i + 100] for i in range(40)]
    assert bench.gate.seen == [value for i in range(40) for value in (i, i + 100)]


def test_an_engine_that_fails_fails_its_own_request_only(bench: Bench) -> None:
    async def run() -> list[Outputs | BaseException]:
        work = [bench.infer(value) for value in (1, 255, 2)]
        return await asyncio.gather(*work, return_exceptions=True)

    first, second, third = asyncio.run(run())

    assert isinstance(second, EngineError)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert (answers(first), answers(third)) == ([1], [2])


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_cancelled_neighbour_at_any_place_harms_nobody(bench: Bench, place: int) -> None:
    async def run() -> list[list[float]]:
        bench.gate.is_open.clear()
        tasks = [asyncio.ensure_future(bench.infer(value)) for value in range(4)]
        await _started(bench.gate)
        tasks[place].cancel()
        await asyncio.wait({tasks[place]})
        bench.gate.is_open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results.pop(place), asyncio.CancelledError)
        return [answers(outputs) for outputs in results if not isinstance(outputs, BaseException)]

    kept = [value for value in range(4) if value != place]

    assert asyncio.run(run()) == [[float(value)] for value in kept]
    # One that has not started never does; the first had.
    assert bench.gate.seen == (kept if place else [0, *kept])
    assert bench.sample("oodserve_queue_depth") == 0


def test_work_whose_deadline_passes_in_the_queue_never_starts(bench: Bench) -> None:
    async def run() -> list[float]:
        bench.gate.is_open.clear()
        first = asyncio.ensure_future(bench.infer(1))
        await _started(bench.gate)
        with pytest.raises(DeadlineExceeded, match=r"no answer within the deadline of 0\.05 s"):
            await bench.infer(2, seconds=0.05)
        bench.gate.is_open.set()
        await bench.infer(3)
        return answers(await first)

    assert asyncio.run(run()) == [1]
    assert bench.gate.seen == [1, 3]
    assert bench.sample("oodserve_queue_depth") == 0


def test_work_whose_deadline_passes_while_it_runs_is_answered_in_time(bench: Bench) -> None:
    async def run() -> float:
        bench.gate.is_open.clear()
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await bench.infer(1, seconds=0.05)
        return time.monotonic() - start

    assert asyncio.run(run()) < 5
    bench.gate.is_open.set()
    assert answers(asyncio.run(_await(bench.infer(2)))) == [2]


async def _await(work: Awaitable[T]) -> T:
    return await work


def test_the_queue_depth_counts_images_that_wait(bench: Bench) -> None:
    async def run() -> float | None:
        bench.gate.is_open.clear()
        first = asyncio.ensure_future(bench.infer(1, 2))
        await _started(bench.gate)
        second = asyncio.ensure_future(bench.infer(3, 4, 5))
        await asyncio.sleep(0)
        depth = bench.sample("oodserve_queue_depth")
        bench.gate.is_open.set()
        await asyncio.gather(first, second)
        return depth

    assert asyncio.run(run()) == 3
    assert bench.sample("oodserve_queue_depth") == 0


def test_batches_and_stages_are_measured(bench: Bench) -> None:
    async def run() -> None:
        await asyncio.gather(bench.infer(1, 2, 3), bench.infer(4))

    asyncio.run(run())

    assert bench.sample("oodserve_batch_size_count", model="m") == 2
    assert bench.sample("oodserve_batch_size_sum", model="m") == 4
    assert bench.sample("oodserve_stage_duration_seconds_count", stage="queue") == 2
    assert bench.sample("oodserve_stage_duration_seconds_count", stage="infer") == 2


def test_closing_cancels_what_waits(bench: Bench) -> None:
    async def run() -> list[Outputs | BaseException]:
        bench.gate.is_open.clear()
        tasks = [asyncio.ensure_future(bench.infer(value)) for value in (1, 2)]
        await _started(bench.gate)
        bench.lane.close()
        bench.gate.is_open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second = asyncio.run(run())

    assert not isinstance(first, BaseException)
    assert isinstance(second, asyncio.CancelledError)


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    pool = DecodePool(threads=2)
    yield pool
    pool.close()


def test_the_pool_returns_what_each_piece_of_work_returns(pool: DecodePool) -> None:
    def square(value: int) -> Callable[[], int]:
        return lambda: value * value

    async def run() -> list[int]:
        work = (pool.run(square(value), deadline=Deadline(10)) for value in range(50))
        return await asyncio.gather(*work)

    assert asyncio.run(run()) == [value * value for value in range(50)]


def test_the_pool_runs_as_many_at_once_as_it_has_threads(pool: DecodePool) -> None:
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.005)
        with lock:
            running.pop()

    async def run() -> None:
        await asyncio.gather(*(pool.run(work, deadline=Deadline(10)) for _ in range(20)))

    asyncio.run(run())

    assert max(most) == 2


def test_the_pool_does_not_start_late_work(pool: DecodePool) -> None:
    started: list[int] = []

    async def run() -> None:
        with pytest.raises(DeadlineExceeded, match="deadline of -1 s"):
            await pool.run(lambda: started.append(1), deadline=Deadline(-1))

    asyncio.run(run())
    pool.close()

    assert started == []
