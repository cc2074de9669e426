"""The API's description: OpenAPI for programs, and a page of it for people.

The page is made here, without scripts and without anything from another host.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, Response

from oodserve import __version__
from server.boundary import SECURITY_HEADERS

TITLE = "oodserve"
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2126;background:#fff}
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f2f4f6;border-radius:4px}
code{padding:.1em .3em}pre{padding:.8rem;overflow:auto}
section{border-top:1px solid #d5dade;margin-top:2rem}
table{border-collapse:collapse}td,th{text-align:left;padding:.25rem 1rem .25rem 0;
vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#e4e8eb;background:#14181b}code,pre{background:#22282d}
section{border-color:#3a4248}a{color:#8ab8ff}}
"""


def add_routes(app: FastAPI) -> None:
    """Add /openapi.json and /docs, both of the routes added so far."""
    document = describe_api(app)
    page = HTMLResponse(_page(document), headers={"Content-Security-Policy": _policy()})

    async def openapi() -> Response:
        return JSONResponse(document)

    async def docs() -> Response:
        return page

    app.add_api_route("/openapi.json", openapi, include_in_schema=False, response_model=None)
    app.add_api_route("/docs", docs, include_in_schema=False, response_model=None)


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the routes added so far."""
    document = get_openapi(
        title=TITLE,
        version=__version__,
        summary="Image classification that says which images are out of distribution",
        description='Every error is `{"error": "..."}`. Every answer has `X-Request-ID`, the '
        "request's own if it had one.",
        routes=app.routes,
    )
    # FastAPI lists its own 422 for every route with a parameter; ours are 400 and `ErrorAnswer`.
    for operations in document["paths"].values():
        for operation in operations.values():
            refusal = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(refusal):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = SECURITY_HEADERS["content-security-policy"]
    return policy.replace("style-src 'self'", f"style-src 'sha256-{digest}'")


def _page(document: dict[str, Any]) -> str:
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3>'
        f"<p>{_prose(schema.get('description', ''))}</p>{_properties(schema)}</section>"
        for name, schema in sorted(document["components"]["schemas"].items())
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{TITLE} API</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="/static/icon.svg">'
        f"<style>{_STYLE}</style><h1>{TITLE} API {escape(document['info']['version'])}</h1>"
        f"<p>{_prose(document['info']['description'])}</p>"
        '<p><a href="/">console</a> · <a href="/openapi.json">OpenAPI document</a></p>'
        "<p>Try it: <code>curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' "
        "http://localhost:8000/v1/predict</code></p>"
        f"{operations}<h2>Answers</h2>{schemas}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(item['name'])}</code><td>{escape(item['in'])}"
        f"<td>{_kind(item['schema'])}<td>{_prose(item.get('description', ''))}"
        for item in operation.get("parameters", [])
    )
    body = operation.get("requestBody", {})
    kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body.get("content", {}))
    answers = "".join(
        f"<tr><td>{escape(code)}<td>{_answer(answer)}<td>{_prose(answer['description'])}"
        for code, answer in sorted(operation["responses"].items())
    )
    return (
        f"<section><h2>{method.upper()} <code>{escape(path)}</code></h2>"
        f"<p>{_prose(operation['summary'])}</p>"
        + (f"<h3>Parameters</h3><table>{parameters}</table>" if parameters else "")
        + (f"<h3>Body</h3><p>{kinds}</p><p>{_prose(body['description'])}</p>" if body else "")
        + f"<h3>Answers</h3><table>{answers}</table></section>"
    )


def _answer(answer: dict[str, Any]) -> str:
    return ", ".join(_kind(media.get("schema", {})) for media in answer.get("content", {}).values())


def _properties(schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{_kind(value)}"
        f"<td>{_prose(value.get('description', ''))}"
        for name, value in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>"


def _kind(schema: dict[str, Any]) -> str:
    """Say what a value is, with links to named answers."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(word))}</code>" for word in schema["enum"])
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return escape(str(schema.get("const", schema.get("type", "any"))))


def _prose(text: str) -> str:
    """Escape text, and set what is between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces)
    )
