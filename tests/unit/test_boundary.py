"""The outermost layer: ids, headers, the one log line, and errors that nobody expected."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.boundary import Boundary
from server.draining import Drain
from server.metrics import Metrics


class Exchange:
    """One request through the boundary to an application, and all that came of it."""

    def __init__(self, app: ASGIApp, *, path: str = "/x", is_draining: bool = False) -> None:
        self.registry = CollectorRegistry()
        self.drain = Drain()
        self.drain.is_draining = is_draining
        self.sent: list[Message] = []
        boundary = Boundary(app, metrics=Metrics(self.registry), drain=self.drain)
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        asyncio.run(self._run(boundary, scope))

    async def _run(self, app: Boundary, scope: MutableMapping[str, Any]) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            self.sent.append(message)

        await app(scope, receive, send)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> Any:
        return json.loads(self.sent[1]["body"])

    def counted(self, code: str) -> float | None:
        labels = {"endpoint": "unmatched", "code": code}
        return self.registry.get_sample_value("oodserve_requests_total", labels)


def raising(error: BaseException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"id": scope["state"]["request_id"]})(scope, receive, send)


async def breaking_off(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("in the middle")


def test_an_answer_carries_the_id_that_the_application_saw() -> None:
    exchange = Exchange(answering)

    assert exchange.body == {"id": exchange.headers["x-request-id"]}
    assert "connection" not in exchange.headers
    assert exchange.counted("200") == 1
    assert exchange.registry.get_sample_value("oodserve_inflight_requests") == 0


def test_while_draining_connections_are_not_kept() -> None:
    assert Exchange(answering, is_draining=True).headers["connection"] == "close"


def test_an_unexpected_error_is_a_500_that_points_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange(raising(KeyError("secret detail")))

    identity = exchange.headers["x-request-id"]
    assert exchange.sent[0]["status"] == 500
    assert exchange.body == {
        "error": f"internal error; the log says more under the request id `{identity}`"
    }
    assert exchange.counted("500") == 1
    assert "secret detail" in caplog.text
    first = caplog.records[0]
    assert (first.levelno, first.getMessage()) == (logging.ERROR, "unexpected error")


def test_an_error_after_the_answer_began_is_logged_and_not_answered_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange(breaking_off)

    assert [message["type"] for message in exchange.sent] == ["http.response.start"]
    assert "in the middle" in caplog.text


def test_a_client_that_left_is_counted_and_not_answered() -> None:
    exchange = Exchange(raising(ClientDisconnect()))

    assert exchange.sent == []
    assert exchange.counted("499") == 1


def test_a_request_that_is_cut_off_is_told_so() -> None:
    exchange = Exchange(raising(asyncio.CancelledError()), is_draining=True)

    assert exchange.sent[0]["status"] == 503
    assert exchange.headers["retry-after"] == "1"
    assert exchange.body["error"] == "the server is shutting down and could not finish this"
    assert exchange.drain.abandoned == 1
    rejected = exchange.registry.get_sample_value(
        "oodserve_rejected_requests_total", {"reason": "draining"}
    )
    assert rejected == 1


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/metrics"])
def test_probes_and_scrapes_leave_no_trace(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    exchange = Exchange(answering, path=path)

    assert exchange.sent[0]["status"] == 200
    assert exchange.counted("200") is None
    assert not [record for record in caplog.records if record.name.startswith("server")]


def test_what_is_no_request_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Any:
        pytest.fail("nothing is received or sent")

    boundary = Boundary(app, metrics=Metrics(CollectorRegistry()), drain=Drain())
    call: Callable[..., Awaitable[None]] = boundary
    asyncio.run(_await(call({"type": "lifespan"}, nothing, nothing)))

    assert seen == ["lifespan"]


async def _await(work: Awaitable[None]) -> None:
    await work
