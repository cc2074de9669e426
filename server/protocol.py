"""The HTTP protocol of one connection: uvicorn's, with a bound on heads and errors in JSON."""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers of one request; the parser itself has no limit."""

LINGER_S = 1.0
"""Time for a refused client to read why, in seconds: closing on unread bytes resets a connection,
and the reset may overtake the answer."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a head that does not end, and closes a connection that never sends one."""

    _is_in_head = False
    _is_refused = False
    _head_bytes = 0

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

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and count it while a head is incomplete."""
        if self._is_refused:
            return
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(
                    "431 Request Header Fields Too Large",
                    f"the request's head has more than {MAX_HEAD_BYTES} bytes",
                )

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Note that the head is complete."""
        self._is_in_head = False
        super().on_headers_complete()

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
