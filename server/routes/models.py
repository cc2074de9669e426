"""What is served: models, their versions, and the calibration in force."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from oodserve.errors import InvalidRequest
from server.answers import ErrorAnswer, ModelAnswer, ModelsAnswer, describe_model
from server.services import services_of

_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "No such model"}
}


def add_routes(app: FastAPI) -> None:
    """Add the routes that describe models."""
    app.add_api_route(
        "/v1/models",
        _models,
        operation_id="list_models",
        summary="All models of this server",
        tags=["models"],
        response_model=None,
        responses={200: {"model": ModelsAnswer, "description": "Models by name"}},
    )
    app.add_api_route(
        "/v1/models/{model}",
        _model,
        operation_id="get_model",
        summary="One model: versions, classes, scores, calibration",
        tags=["models"],
        response_model=None,
        responses={200: {"model": ModelAnswer, "description": "The model"}, **_UNKNOWN},
    )
    app.add_api_route(
        "/v1/models/{model}/calibration",
        _calibration,
        operation_id="get_calibration",
        summary="The active version's calibration document; its ETag is the calibration's id",
        tags=["models"],
        response_model=None,
        responses={
            200: {
                "content": {"application/json": {"schema": {"type": "object"}}},
                "description": "The file, byte for byte",
            },
            304: {"description": "`If-None-Match` names the calibration in force"},
            503: {"model": ErrorAnswer, "description": "The model is not ready"},
            **_UNKNOWN,
        },
    )


async def _models(request: Request) -> Response:
    repository = services_of(request).repository
    try:
        default = repository.default_name()
    except InvalidRequest:
        default = None
    models = [describe_model(model) for model in repository.models.values()]
    return JSONResponse({"models": models, "default_model": default})


async def _model(request: Request, model: str) -> Response:
    return JSONResponse(describe_model(services_of(request).repository.model(model)))


async def _calibration(request: Request, model: str) -> Response:
    active = services_of(request).repository.resolve(model).require_ready().in_force.active
    headers = {"ETag": f'"{active.id}"', "Cache-Control": "no-cache"}
    known = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in known.split(",")}
    if active.id in tags or "*" in tags:
        return Response(status_code=304, headers=headers)
    content = active.calibration.to_json()
    return Response(content, media_type="application/json", headers=headers)
