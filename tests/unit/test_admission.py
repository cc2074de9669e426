"""The budget in images and bytes that all requests share."""

from __future__ import annotations

import pytest

from oodserve.errors import Overloaded
from server.admission import Admission


def test_what_a_ticket_took_comes_back_however_the_request_ends() -> None:
    admission = Admission(max_images=4, max_bytes=100)

    with pytest.raises(KeyError), admission.ticket() as ticket:  # noqa: PT012 - what is tested
        ticket.take_bytes(60)
        ticket.take_bytes(10)
        ticket.take_images(3)
        assert (admission.images, admission.bytes) == (3, 70)
        raise KeyError

    assert (admission.images, admission.bytes) == (0, 0)


def test_bytes_above_the_budget_are_refused_and_not_held() -> None:
    admission = Admission(max_images=4, max_bytes=100)

    with admission.ticket() as first, admission.ticket() as second:
        first.take_bytes(80)
        with pytest.raises(Overloaded, match=r"the queue is full \(80 of 100 bytes are being"):
            second.take_bytes(21)
        second.take_bytes(20)
        assert admission.bytes == 100


def test_bytes_that_are_only_announced_are_not_held() -> None:
    admission = Admission(max_images=4, max_bytes=100)

    with admission.ticket() as ticket:
        ticket.check_bytes(100)
        assert admission.bytes == 0


def test_images_above_the_budget_are_refused_and_not_held() -> None:
    admission = Admission(max_images=4, max_bytes=100)

    with admission.ticket() as first, admission.ticket() as second:
        first.take_images(3)
        with pytest.raises(Overloaded, match=r"the queue is full \(3 of 4 images are being"):
            second.take_images(2)
        assert admission.images == 3


def test_a_full_queue_refuses_before_a_body_is_read() -> None:
    admission = Admission(max_images=4, max_bytes=100)

    with admission.ticket() as ticket:
        ticket.take_images(4)
        with pytest.raises(Overloaded, match=r"\(4 of 4 images"), admission.ticket():
            pytest.fail("a ticket was given out")
