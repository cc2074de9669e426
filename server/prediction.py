"""One predict request after its body has been read: decode, infer, decide, count.

An image that fails is an error in its place; its neighbours are answered all the same. The
calibration is taken once, so that no answer mixes two.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodserve.engines import Outputs
from oodserve.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NonFiniteScore,
    OodserveError,
)
from oodserve.images import decode, preprocess, stack
from oodserve.predictor import Prediction, Predictor
from server.bodies import Item
from server.inference import Deadline, DecodePool
from server.metrics import Metrics, smoothing_u
from server.models import InForce, Ready

Result = Prediction | OodserveError
"""The answer for one image, or why there is none."""


@dataclass(frozen=True)
class Options:
    """What a caller may choose."""

    top_k: int = 1
    score_name: str | None = None


@dataclass(frozen=True)
class Call:
    """One predict request: what to run it on, and what it asks for."""

    request_id: str
    ready: Ready
    in_force: InForce
    options: Options

    def check(self) -> None:
        """Raise `InvalidRequest` for options that this model cannot honour, before any work."""
        classes = len(self.ready.bundle.manifest.classes)
        if not 1 <= self.options.top_k <= classes:
            raise InvalidRequest(
                f"`top_k` = {self.options.top_k} is not between 1 and {classes}, "
                "the number of classes"
            )
        self.in_force.active.score(self.options.score_name)


async def predict(
    call: Call, items: Sequence[Item], *, pool: DecodePool, metrics: Metrics, deadline: Deadline
) -> list[Result]:
    """Answer for every item, in order.

    Raises
    ------
    DeadlineExceeded, EngineError
        For the request as a whole.
    """
    decoded = await asyncio.gather(
        *(_decode(item, call.ready.predictor, pool, metrics, deadline) for item in items)
    )
    for late in decoded:
        if isinstance(late, DeadlineExceeded):
            raise late
    images = [image for image in decoded if not isinstance(image, OodserveError)]
    if not images:
        return [image for image in decoded if isinstance(image, OodserveError)]
    outputs = await call.ready.lane.infer(stack(images), deadline=deadline)
    start = time.perf_counter()
    rows = iter(range(len(images)))
    results = [
        image
        if isinstance(image, OodserveError)
        else _decide(call, outputs, next(rows), position, metrics)
        for position, image in enumerate(decoded)
    ]
    metrics.observe_stage("score", time.perf_counter() - start)
    return results


async def _decode(
    item: Item, predictor: Predictor, pool: DecodePool, metrics: Metrics, deadline: Deadline
) -> NDArray[np.uint8] | OodserveError:
    if isinstance(item, OodserveError):
        return item
    try:
        return await pool.run(lambda: _prepare(item, predictor, metrics), deadline=deadline)
    except OodserveError as error:
        return error


def _prepare(data: bytes, predictor: Predictor, metrics: Metrics) -> NDArray[np.uint8]:
    """Do what `Predictor.prepare` does, its two halves timed apart."""
    spec = predictor.bundle.manifest.input.preprocessing
    start = time.perf_counter()
    image = decode(data, limits=predictor.limits, background=spec.background)
    middle = time.perf_counter()
    prepared = preprocess(image, spec)
    metrics.observe_stage("decode", middle - start)
    metrics.observe_stage("preprocess", time.perf_counter() - middle)
    return prepared


def _decide(call: Call, outputs: Outputs, row: int, position: int, metrics: Metrics) -> Result:
    """Decide on one row, and count it under every calibrated score.

    Parameters
    ----------
    row : int
        Of the outputs.
    position : int
        Of the image in the request; another one where neighbours could not be decoded.
    """
    active, model = call.in_force.active, call.ready.bundle.name
    scores = {name: float(outputs[name][row]) for name in active.calibration.scores}
    finite = {name: score for name, score in scores.items() if math.isfinite(score)}
    try:
        prediction = call.ready.predictor.decide(
            outputs,
            row,
            active=active,
            score_name=call.options.score_name,
            top_k=call.options.top_k,
        )
    except NonFiniteScore as error:
        metrics.nonfinite_scores.labels(model).inc()
        return error
    if len(finite) < len(scores):
        metrics.nonfinite_scores.labels(model).inc()
    call.in_force.series.observe(prediction, finite, u=smoothing_u(call.request_id, position))
    return prediction
