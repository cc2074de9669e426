"""How the process ends: not ready first, then no new connections, then everything accepted.

    SIGTERM ──> readiness 503, `Connection: close` on every answer, still accepting
            ──> after `drain_delay_s`: the listener closes
            ──> within `drain_timeout_s`: all accepted requests are answered
            ──> exit status 0, or 1 if some were not

Ctrl-C skips the delay, since no load balancer is waiting. A second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from types import FrameType

import uvicorn

from server.protocol import BoundedHttpProtocol
from server.settings import Settings

LINGER_S = 1.0
"""Time, in seconds, for a request to show up on a connection that has none when the listener
closes: it may have been accepted, or answered, only a moment ago."""

POLL_S = 0.02

LOG = logging.getLogger("server.draining")


class Drain:
    """Whether this process is on its way out, and what it had to leave undone."""

    def __init__(self) -> None:
        self.is_draining = False
        self.abandoned = 0
        """Accepted requests that were cut off at `drain_timeout_s`."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server with a delay between the signal and the closing of the listener.

    Parameters
    ----------
    config : uvicorn.Config
        Of the application.
    settings : Settings
        How long to wait.
    drain : Drain
        Told when draining begins.
    """

    def __init__(self, config: uvicorn.Config, *, settings: Settings, drain: Drain) -> None:
        super().__init__(config)
        self._settings = settings
        self._drain = drain
        self._stop_at: float | None = None
        self._is_logged = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and say where."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            LOG.info("listening", extra={"fields": {"host": host, "port": port}})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal end at once."""
        if self._stop_at is not None:
            os._exit(128 + sig)
        self._drain.is_draining = True
        delay_s = 0.0 if sig == signal.SIGINT else self._settings.drain_delay_s
        self._stop_at = time.monotonic() + delay_s

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to stop listening."""
        is_over = await super().on_tick(counter)
        if self._stop_at is None:
            return is_over
        if not self._is_logged:
            self._is_logged = True
            remaining_s = max(0.0, self._stop_at - time.monotonic())
            LOG.info("draining", extra={"fields": {"accepting_for_s": round(remaining_s, 3)}})
        return is_over or time.monotonic() >= self._stop_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, then finish what was accepted."""
        waiting = _accept_all(sockets or [])
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._make_protocol, connection)
        await self._linger()
        await super().shutdown(sockets)
        LOG.info("stopped", extra={"fields": {"abandoned_requests": self._drain.abandoned}})

    async def _linger(self) -> None:
        """Wait for connections without a request to bring one, or to be closed by their clients."""
        end = time.monotonic() + LINGER_S
        # Connections accepted just now are made known by the loop's next turns.
        await asyncio.sleep(POLL_S)
        while time.monotonic() < end and any(
            isinstance(connection, BoundedHttpProtocol) and connection.is_idle
            for connection in self.server_state.connections
        ):
            await asyncio.sleep(POLL_S)

    def _make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _accept_all(listeners: list[socket.socket]) -> list[socket.socket]:
    """Accept what the kernel holds: closing a listener resets connections that wait in it."""
    accepted = []
    for listener in listeners:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                connection.setblocking(False)
                accepted.append(connection)
    return accepted
