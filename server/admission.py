"""How much the server takes on at once: a bound in images and in bytes over all requests.

A request takes from the budget before it holds anything, and gives back when it is answered,
however that ends. What does not fit is refused at once, so accepted requests keep their latency.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from oodserve.errors import Overloaded


class Admission:
    """The budget that is shared by all requests of a process; used from the event loop only.

    Parameters
    ----------
    max_images : int
        Most images admitted and not answered yet.
    max_bytes : int
        Most bytes of request bodies held, likewise.
    """

    def __init__(self, *, max_images: int, max_bytes: int) -> None:
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0

    @contextlib.contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """Admit one request; what its ticket took is given back at the end.

        Raises
        ------
        Overloaded
            No image more would be admitted, so the body is not even read.
        """
        if self.images >= self.max_images:
            raise _overloaded("images", self.images, self.max_images)
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            self.images -= ticket.images
            self.bytes -= ticket.bytes


class Ticket:
    """What one request holds of the budget."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.images = 0
        self.bytes = 0

    def check_bytes(self, count: int) -> None:
        """Raise `Overloaded` if `count` more bytes of body would not fit now."""
        admission = self._admission
        if admission.bytes + count > admission.max_bytes:
            raise _overloaded("bytes", admission.bytes, admission.max_bytes)

    def take_bytes(self, count: int) -> None:
        """Hold `count` more bytes of body, or raise `Overloaded`."""
        self.check_bytes(count)
        self._admission.bytes += count
        self.bytes += count

    def take_images(self, count: int) -> None:
        """Hold `count` more images, or raise `Overloaded`."""
        admission = self._admission
        if admission.images + count > admission.max_images:
            raise _overloaded("images", admission.images, admission.max_images)
        admission.images += count
        self.images += count


def _overloaded(unit: str, held: int, limit: int) -> Overloaded:
    return Overloaded(
        f"the queue is full ({held} of {limit} {unit} are being worked on); try again later"
    )
