"""Every error class has a status, and a rejection its reason."""

from __future__ import annotations

import pytest

from oodserve import errors
from server.statuses import REASONS, TABLE, headers_of, reason_of, status_of


def _all_errors() -> list[type[errors.OodserveError]]:
    found: list[type[errors.OodserveError]] = [errors.OodserveError]
    for kind in found:
        found += kind.__subclasses__()
    # Classes that other tests may have made for themselves are not part of the tree.
    return [kind for kind in found if kind.__module__.startswith(("oodserve.", "server."))]


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_of_its_own(kind: type[errors.OodserveError]) -> None:
    assert kind in TABLE
    assert 400 <= TABLE[kind].status < 600
    assert TABLE[kind].reason is None or TABLE[kind].reason in REASONS


def test_the_table_has_nothing_else() -> None:
    assert set(TABLE) == set(_all_errors())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.EmptyImage(), 400),
        (errors.UnsupportedImage(), 415),
        (errors.ImageTooLarge("", unit="bytes", got=2, limit=1), 413),
        (errors.UndecodableImage(), 422),
        (errors.InvalidRequest(), 400),
        (errors.RequestTooLarge(), 413),
        (errors.UnsupportedMediaType(), 415),
        (errors.UnknownModel(), 404),
        (errors.NotReady(""), 503),
        (errors.Overloaded(""), 503),
        (errors.Draining(""), 503),
        (errors.DeadlineExceeded(""), 504),
        (errors.NonFiniteScore(), 500),
        (errors.EngineError(), 500),
    ],
    ids=lambda value: type(value).__name__,
)
def test_statuses_that_callers_rely_on(error: errors.OodserveError, status: int) -> None:
    assert status_of(error) == status


def test_an_error_from_elsewhere_has_the_status_of_its_base() -> None:
    class Stranger(errors.UndecodableImage):
        pass

    assert status_of(Stranger()) == 422
    assert reason_of(Stranger()) == "decode"


def test_too_many_pixels_and_too_many_bytes_are_counted_apart() -> None:
    pixels = errors.ImageTooLarge("", unit="pixels", got=2, limit=1)
    size = errors.ImageTooLarge("", unit="bytes", got=2, limit=1)

    assert (reason_of(pixels), reason_of(size)) == ("pixels", "too_large")


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.Overloaded("", retry_after_s=0.2), {"Retry-After": "1"}),
        (errors.NotReady("", retry_after_s=2.1), {"Retry-After": "3"}),
        (errors.DeadlineExceeded(""), {}),
        (errors.InvalidRequest(""), {}),
    ],
)
def test_only_what_passes_says_when_to_come_back(
    error: errors.OodserveError, headers: dict[str, str]
) -> None:
    assert headers_of(error) == headers
