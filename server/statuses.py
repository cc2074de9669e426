"""From domain errors to HTTP: the one place where a class meets a status code.

An error's status is that of its own row, and every class of `oodserve.errors` has one. The second
column is the reason under which `oodserve_rejected_requests_total` counts it; None where the
refusal says nothing about load or images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from oodserve import errors

Reason = Literal[
    "queue_full",
    "deadline",
    "too_large",
    "pixels",
    "decode",
    "unsupported",
    "rate",
    "draining",
    "upstream",
]
"""Why a request, or an image of it, was turned away."""

REASONS: tuple[Reason, ...] = get_args(Reason)

CLIENT_CLOSED_REQUEST = 499
"""What logs and metrics show for a client that left before its answer; never sent."""


class Row(NamedTuple):
    """What the server makes of one class of error."""

    status: int
    reason: Reason | None = None


TABLE: Mapping[type[errors.OodserveError], Row] = {
    errors.OodserveError: Row(500),
    # Who sent the image.
    errors.ImageError: Row(422, "decode"),
    errors.EmptyImage: Row(400, "decode"),
    errors.UnsupportedImage: Row(415, "unsupported"),
    errors.ImageTooLarge: Row(413, "too_large"),
    errors.UndecodableImage: Row(422, "decode"),
    # Who made the call.
    errors.RequestError: Row(400),
    errors.InvalidRequest: Row(400),
    errors.RequestTooLarge: Row(413, "too_large"),
    errors.UnsupportedMediaType: Row(415, "unsupported"),
    errors.UnknownModel: Row(404),
    # Nobody: try again later.
    errors.Unavailable: Row(503),
    errors.NotReady: Row(503),
    errors.Overloaded: Row(503, "queue_full"),
    errors.Draining: Row(503, "draining"),
    errors.DeadlineExceeded: Row(504, "deadline"),
    # Who operates the server. Found while loading these make a model not ready; a request meets
    # them only as `NotReady`, unless something changed underneath.
    errors.ArtifactError: Row(500),
    errors.BundleError: Row(500),
    errors.CalibrationError: Row(500),
    errors.TooFewSamples: Row(500),
    errors.NotCalibrated: Row(503),
    errors.CalibrationMismatch: Row(500),
    errors.EngineError: Row(500),
    errors.NonFiniteScore: Row(500),
    # Programs other than this one, or this one at start.
    errors.ConfigurationError: Row(500),
    errors.RecipeError: Row(500),
    errors.DataError: Row(500),
    errors.WeightsUnavailable: Row(500),
    errors.ParityError: Row(500),
}


def status_of(error: errors.OodserveError) -> int:
    """Return the HTTP status of an error."""
    return _row(error).status


def reason_of(error: errors.OodserveError) -> Reason | None:
    """Return the reason to count an error under as a rejection, or None."""
    if isinstance(error, errors.ImageTooLarge) and error.unit == "pixels":
        return "pixels"
    return _row(error).reason


def headers_of(error: errors.OodserveError) -> dict[str, str]:
    """Return the headers that go with an error: when to come back, in whole seconds."""
    # A 504 is about this request alone; there is nothing to wait for.
    if isinstance(error, errors.Unavailable) and not isinstance(error, errors.DeadlineExceeded):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    return {}


def _row(error: errors.OodserveError) -> Row:
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
