"""From encoded images to model outputs: a pool of decoding threads, then one thread per model.

Both drop work whose deadline has passed, or whose request was cancelled, before it starts; neither
lets one piece of work reach another. `Lane` is the seam at which images of several requests will be
put into one batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from oodserve.engines import Outputs
from oodserve.errors import DeadlineExceeded
from server.metrics import Metrics

T = TypeVar("T")


class Deadline:
    """A moment after which an answer is of no use.

    Parameters
    ----------
    seconds : float
        From now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def remaining_s(self) -> float:
        """Seconds left; negative when it has passed."""
        return self._end - time.monotonic()

    def exceeded(self) -> DeadlineExceeded:
        """Return the error that says so."""
        return DeadlineExceeded(
            f"no answer within the deadline of {self.seconds:g} s; send fewer images at a time, or "
            "try again later"
        )


class Lane(Protocol):
    """Runs one model version for many requests."""

    async def infer(self, images: NDArray[np.uint8], *, deadline: Deadline) -> Outputs:
        """Return the outputs for one request's images (N, H, W, 3) uint8, in their order.

        Raises
        ------
        DeadlineExceeded
            The work did not end in time; if it had not started, it never will.
        EngineError
            The runtime failed.
        """

    def close(self) -> None:
        """Drop what has not started, and end once the rest is done."""


class DecodePool:
    """Threads that decode and preprocess; Pillow lets go of the interpreter while it does.

    Parameters
    ----------
    threads : int
        How many images are decoded at the same time, which bounds the memory of decoded pixels.
    """

    def __init__(self, *, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def run(self, work: Callable[[], T], *, deadline: Deadline) -> T:
        """Return `work()`, computed in a thread.

        Raises
        ------
        DeadlineExceeded
            It did not end in time; if it had not started, it never will.
        """
        return await _in_time(self._executor.submit(_unless_late, work, deadline), deadline)

    def close(self) -> None:
        """Drop what has not started, and end once the rest is done."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class InferenceLane:
    """One inference thread for one model version, requests in the order of their arrival.

    Parameters
    ----------
    run : callable
        The engine's `infer`.
    model : str
        Name, for metrics.
    metrics : Metrics
        Told of queueing and inference times, batch sizes and queue depth.
    """

    def __init__(
        self, run: Callable[[NDArray[np.uint8]], Outputs], *, model: str, metrics: Metrics
    ) -> None:
        self._run = run
        self._model = model
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"infer-{model}")

    async def infer(self, images: NDArray[np.uint8], *, deadline: Deadline) -> Outputs:
        """Run one request's images as one batch; see `Lane`."""
        queued = time.perf_counter()
        self._metrics.queue_depth.inc(len(images))
        future = self._executor.submit(self._work, images, queued, deadline)
        # Also when it is cancelled before it starts, so that the depth always comes back to 0.
        future.add_done_callback(lambda done: self._left_queue(done, len(images)))
        return await _in_time(future, deadline)

    def close(self) -> None:
        """Drop what has not started, and end once the rest is done."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _left_queue(self, done: Future[Outputs], images: int) -> None:
        if done.cancelled():
            self._metrics.queue_depth.dec(images)

    def _work(self, images: NDArray[np.uint8], queued: float, deadline: Deadline) -> Outputs:
        start = time.perf_counter()
        self._metrics.queue_depth.dec(len(images))
        self._metrics.observe_stage("queue", start - queued)
        outputs = _unless_late(lambda: self._run(images), deadline)
        self._metrics.observe_stage("infer", time.perf_counter() - start)
        self._metrics.batch_size.labels(self._model).observe(len(images))
        return outputs


def _unless_late(work: Callable[[], T], deadline: Deadline) -> T:
    if deadline.remaining_s <= 0:
        raise deadline.exceeded()
    return work()


async def _in_time(future: Future[T], deadline: Deadline) -> T:
    """Wait for a thread's result until the deadline; leaving cancels what has not started."""
    try:
        async with asyncio.timeout(deadline.remaining_s):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise deadline.exceeded() from None
