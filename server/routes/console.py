"""The console for people: static files from this process, none from another host."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parents[1] / "web"
"""Where the console's files lie."""

# They change with the server's version, so browsers ask each time; unchanged ones are a 304.
_CACHING = {"Cache-Control": "no-cache"}


def add_routes(app: FastAPI) -> None:
    """Add the console and its files."""
    files = StaticFiles(directory=WEB)

    async def static(request: Request, path: str) -> Response:
        response = await files.get_response(path, request.scope)
        response.headers.update(_CACHING)
        return response

    app.add_api_route("/", _console, include_in_schema=False, response_model=None)
    app.add_api_route("/static/{path:path}", static, include_in_schema=False, response_model=None)


async def _console() -> Response:
    return FileResponse(WEB / "index.html", headers=_CACHING)
