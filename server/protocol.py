"""The HTTP protocol of one connection: uvicorn's, with a bound on heads and errors in JSON."""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers of one request, and likewise its trailer; the parser itself has no
limit."""

LINGER_S = 1.0
"""Time for a refused client to read why, in seconds: closing on unread bytes resets a connection,
and the reset may overtake the answer."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a head or trailer that does not end, and closes a connection that sends no request.

    uvicorn itself keeps what a client sends as trailer fields, without a limit, and waits for the
    rest of a head for ever.
    """

    _is_in_head = False
    _is_refused = False
    _has_progress = False
    """Whether the bytes being parsed ended a head or a message, or were part of a body."""
    _unproductive_bytes = 0
    """Bytes since the last that did."""
    _late_head_task: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being received or answered."""
        # Declared as never None, and None until the first request.
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the idle timer at once: uvicorn itself starts it after the first answer."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a head that did not end."""
        self._stop_late_head_task()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and count what leads nowhere."""
        if self._is_refused:
            return
        self._has_progress = False
        super().data_received(data)
        if self._is_refused:
            return
        self._unproductive_bytes = 0 if self._has_progress else self._unproductive_bytes + len(data)
        if self._unproductive_bytes > MAX_HEAD_BYTES:
            part = "head" if self.is_idle or self._is_in_head else "trailer"
            self._refuse(
                "431 Request Header Fields Too Large",
                f"the request's {part} has more than {MAX_HEAD_BYTES} bytes",
            )
        elif self.is_idle and self._late_head_task is None:
            # Any byte stops the idle timer, so another one must see to it that a head ends.
            self._late_head_task = self.loop.call_later(
                self.timeout_keep_alive, self.transport.close
            )

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; fields of a trailer are dropped, as nothing here reads any."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that the head is complete."""
        self._is_in_head = False
        self._has_progress = True
        self._stop_late_head_task()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that a body goes on."""
        self._has_progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is complete."""
        self._has_progress = True
        super().on_message_complete()

    def _stop_late_head_task(self) -> None:
        if self._late_head_task is not None:
            self._late_head_task.cancel()
            self._late_head_task = None

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, in the form that every error has."""
        self._refuse("400 Bad Request", msg.rstrip(".").lower())

    def _refuse(self, status: str, message: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": message}).encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self._is_refused = True
        self.transport.write(head.encode() + body)
        if self.is_idle:
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.close)
        else:
            # An answer to an earlier request is still being written; nothing can follow this one.
            self.transport.close()
