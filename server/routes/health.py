"""Probes. Liveness depends on nothing but the process; readiness on every model."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from server.answers import LiveAnswer, NotReadyAnswer, ReadyAnswer
from server.models import RETRY_LOADING_S
from server.services import services_of


def add_routes(app: FastAPI) -> None:
    """Add liveness and readiness."""
    app.add_api_route(
        "/v2/health/live",
        _live,
        operation_id="live",
        summary="Whether the process works; true while loading, broken or draining too",
        tags=["health"],
        response_model=None,
        responses={200: {"model": LiveAnswer, "description": "It does"}},
    )
    app.add_api_route(
        "/v2/health/ready",
        _ready,
        operation_id="ready",
        summary="Whether every model is warmed up and calibrated, and the server not draining",
        tags=["health"],
        response_model=None,
        responses={
            200: {"model": ReadyAnswer, "description": "Send traffic"},
            503: {"model": NotReadyAnswer, "description": "Do not; the reasons say why"},
        },
    )


async def _live() -> Response:
    return JSONResponse({"live": True})


async def _ready(request: Request) -> Response:
    services = services_of(request)
    reasons = services.repository.unready()
    if services.drain.is_draining:
        reasons["server"] = "the server is draining: it was told to stop"
    if reasons:
        return JSONResponse(
            {"ready": False, "reasons": reasons},
            status_code=503,
            headers={"Retry-After": str(round(RETRY_LOADING_S))},
        )
    return JSONResponse({"ready": True})
