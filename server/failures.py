"""Every refusal has one form: a status and ``{"error": "..."}``, whoever raised it."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oodserve.errors import InvalidRequest, OodserveError
from server.services import services_of
from server.statuses import headers_of, reason_of, status_of


def add_handlers(app: FastAPI) -> None:
    """Map domain errors, the framework's own errors and rejected parameters."""
    app.add_exception_handler(OodserveError, _on_domain_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameter)


def refuse(
    request: Request, status: int, text: str, headers: dict[str, str] | None = None
) -> Response:
    """Return the answer for an error, and note the text for the log line."""
    request.state.log_fields["error"] = text
    return JSONResponse({"error": text}, status_code=status, headers=headers)


async def _on_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OodserveError)
    reason = reason_of(error)
    if reason is not None:
        services_of(request).metrics.reject(reason)
    return refuse(request, status_of(error), str(error), headers_of(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = str(error.detail).lower()
    if error.status_code == 404:
        text = f"there is nothing at `{request.url.path[:200]}`; see /docs"
    elif error.status_code == 405:
        text = f"`{request.method}` is not allowed here; see /docs"
    return refuse(request, error.status_code, text, dict(error.headers or {}))


async def _on_invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    texts = []
    for item in error.errors():
        where, name = item["loc"][0], item["loc"][-1]
        if item["type"] == "extra_forbidden":
            texts.append(f"unknown {where} parameter `{str(name)[:40]}`")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            texts.append(f"{where} parameter `{name}` = {item['input']!r:.60}: {message}")
    invalid = InvalidRequest("; ".join(texts) + "; see /docs")
    return refuse(request, status_of(invalid), str(invalid))
