"""POST an image, get its class and whether it is out of distribution."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from oodserve.errors import InvalidRequest, OodserveError
from oodserve.predictor import Prediction
from server.answers import ErrorAnswer, PredictAnswer, describe_failures, describe_results
from server.bodies import Item, MediaType, media_type, read_body, split_body
from server.disconnects import while_connected
from server.failures import refuse
from server.inference import Deadline
from server.models import ServedVersion
from server.prediction import Call, Options, Result, predict
from server.services import Services, services_of
from server.statuses import reason_of

REFUSALS: Mapping[int, str] = {
    400: "Malformed body, no image, empty image, or a query parameter that cannot be right",
    404: "No such model or version",
    413: "Body, image, pixels or number of images above the limit",
    415: "Media type or image format that is not understood",
    422: "Truncated or corrupt image",
    500: "The model failed, or returned NaN or an infinity",
    503: "Not ready, queue full or shutting down; `Retry-After` says when to come back",
    504: "No answer within the deadline",
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "type": "object",
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    },
    "additionalProperties": {"type": "string", "format": "binary"},
    "description": "One to many files, whatever their field names.",
}
_BASE64 = {
    "type": "object",
    "properties": {
        "images": {
            "type": "array",
            "items": {"type": "string", "format": "byte"},
            "minItems": 1,
        }
    },
    "required": ["images"],
    "additionalProperties": False,
}
REQUEST_BODY = {
    "required": True,
    "description": "JPEG, PNG, WebP, GIF (first frame), BMP or TIFF: one raw image, files, or "
    "base64 in JSON.",
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "multipart/form-data": {"schema": _FILES},
        "application/json": {"schema": _BASE64},
    },
}


class PredictQuery(BaseModel):
    """Query parameters of a predict request."""

    model_config = ConfigDict(extra="forbid")

    top_k: int = Field(default=1, ge=1, description="How many classes to list.")
    score_name: str | None = Field(
        default=None, description="Decide by this score; by default the calibration's."
    )


Parameters = Annotated[PredictQuery, Query()]


def add_routes(app: FastAPI) -> None:
    """Add the predict routes."""
    responses: dict[int | str, dict[str, Any]] = {
        200: {"model": PredictAnswer, "description": "One prediction for each image"},
        **{code: {"model": ErrorAnswer, "description": text} for code, text in REFUSALS.items()},
    }
    for path, endpoint, name, summary in (
        (
            "/v1/predict",
            _predict_default,
            "predict",
            "Classify images with the only or the default model",
        ),
        (
            "/v1/models/{model}/predict",
            _predict_model,
            "predict_with_model",
            "Classify images with a model",
        ),
        (
            "/v1/models/{model}/versions/{version}/predict",
            _predict_version,
            "predict_with_version",
            "Classify images with one version of a model",
        ),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            operation_id=name,
            summary=summary,
            tags=["predict"],
            response_model=None,
            responses=responses,
            openapi_extra={"requestBody": REQUEST_BODY},
        )


async def _predict_default(request: Request, query: Parameters) -> Response:
    return await _predict(request, query, model=None, version=None)


async def _predict_model(request: Request, model: str, query: Parameters) -> Response:
    return await _predict(request, query, model=model, version=None)


async def _predict_version(
    request: Request, model: str, version: str, query: Parameters
) -> Response:
    return await _predict(request, query, model=model, version=version)


async def _predict(
    request: Request, query: PredictQuery, *, model: str | None, version: str | None
) -> Response:
    services = services_of(request)
    _refuse_repeated(request)
    served = services.repository.resolve(model, version)
    ready = served.require_ready()
    options = Options(top_k=query.top_k, score_name=query.score_name)
    call = Call(request.state.request_id, ready, ready.in_force, options)
    call.check()
    kind = media_type(request)
    settings = services.settings
    with services.admission.ticket() as ticket:
        body = await read_body(
            request,
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.body_timeout_s,
            ticket=ticket,
        )

        async def work() -> list[Result]:
            deadline = Deadline(settings.deadline_s)
            items = await _split(services, body, kind, deadline)
            ticket.take_images(len(items))
            return await predict(
                call, items, pool=services.pool, metrics=services.metrics, deadline=deadline
            )

        results = await while_connected(request, work())
    return _respond(request, served, call, results)


def _refuse_repeated(request: Request) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise InvalidRequest(f"query parameter `{min(repeated)[:40]}` is given more than once")


async def _split(
    services: Services, body: bytes, kind: MediaType, deadline: Deadline
) -> list[Item]:
    split = partial(split_body, body, kind, max_images=services.settings.max_images_per_request)
    if kind.is_one_image:
        return list(split())
    return list(await services.pool.run(split, deadline=deadline))


def _respond(
    request: Request, served: ServedVersion, call: Call, results: list[Result]
) -> Response:
    predictions = [result for result in results if isinstance(result, Prediction)]
    errors = [result for result in results if isinstance(result, OodserveError)]
    metrics = services_of(request).metrics
    for reason in map(reason_of, errors):
        if reason is not None:
            metrics.reject(reason)
    request.state.log_fields.update(
        model=served.model,
        version=str(served.number),
        calibration=call.in_force.active.id,
        images=len(results),
        failed=len(errors),
        ood=sum(prediction.ood for prediction in predictions),
    )
    if not predictions:
        status, text = describe_failures(errors)
        return refuse(request, status, text)
    return JSONResponse(describe_results(served, call.in_force, call.request_id, results))
