"""The outermost layer of every request: its id, its headers, its one log line, its metrics.

Also the place where an unexpected error becomes a 500 in the form that every error has.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.draining import Drain
from server.metrics import UNMATCHED, Metrics
from server.statuses import CLIENT_CLOSED_REQUEST

QUIET = frozenset({"/v2/health/live", "/v2/health/ready", "/metrics"})
"""Routes that probes and scrapes call: in no log line and no request metric."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

LOG = logging.getLogger("server.request")


class Boundary:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    app : ASGIApp
        The application.
    metrics : Metrics
        Told of every request that is not `QUIET`.
    drain : Drain
        While it is under way, connections are not kept alive.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, drain: Drain) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, drain=self._drain)
        is_quiet = scope["path"] in QUIET
        if not is_quiet:
            self._metrics.inflight_requests.inc()
        try:
            await self._handle(exchange, receive)
        finally:
            if not is_quiet:
                self._metrics.inflight_requests.dec()
                self._record(exchange)

    async def _handle(self, exchange: _Exchange, receive: Receive) -> None:
        try:
            await self._app(exchange.scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = CLIENT_CLOSED_REQUEST
        except asyncio.CancelledError:
            # Only uvicorn cancels a request: when `drain_timeout_s` is over.
            self._drain.abandoned += 1
            self._metrics.reject("draining")
            await exchange.fail(503, "the server is shutting down and could not finish this")
        except Exception:
            LOG.exception("unexpected error", extra={"fields": {"request_id": exchange.id}})
            await exchange.fail(
                500, f"internal error; the log says more under the request id `{exchange.id}`"
            )

    def _record(self, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.start
        endpoint = exchange.endpoint
        self._metrics.observe_request(endpoint, exchange.status, seconds)
        level = logging.INFO if exchange.status < 500 else logging.WARNING
        LOG.log(
            level,
            "request",
            extra={
                "fields": {
                    "request_id": exchange.id,
                    "method": exchange.scope["method"],
                    "endpoint": endpoint,
                    "status": exchange.status,
                    "duration_ms": round(1000 * seconds, 3),
                    **exchange.fields,
                }
            },
        )


class _Exchange:
    """One request and its answer, as the boundary sees them."""

    def __init__(self, scope: Scope, send: Send, *, drain: Drain) -> None:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        trace = headers.get("traceparent", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.traceparent = trace if _TRACEPARENT.fullmatch(trace) else None
        self.scope = scope
        self.status = 500
        self.start = time.perf_counter()
        self.fields: dict[str, object] = {}
        if self.traceparent is not None:
            self.fields["traceparent"] = self.traceparent
        self._send = send
        self._drain = drain
        self._has_started = False
        scope.setdefault("state", {}).update(request_id=self.id, log_fields=self.fields)

    @property
    def endpoint(self) -> str:
        """The route's template; never the path itself, which is anybody's choice."""
        return getattr(self.scope.get("route"), "path", UNMATCHED)

    async def send(self, message: Message) -> None:
        """Pass on what the application sends, with our headers."""
        if message["type"] == "http.response.start":
            self._has_started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            if self.traceparent is not None:
                headers["traceparent"] = self.traceparent
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if self._drain.is_draining:
                headers["connection"] = "close"
        await self._send(message)

    async def fail(self, status: int, text: str) -> None:
        """Answer with an error, unless an answer is already under way."""
        self.fields["error"] = text
        if self._has_started:
            return
        body = json.dumps({"error": text}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
