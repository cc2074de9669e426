"""What Prometheus scrapes."""

from __future__ import annotations

from fastapi import FastAPI, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from server.services import services_of


def add_routes(app: FastAPI) -> None:
    """Add the scrape route."""
    app.add_api_route(
        "/metrics",
        _metrics,
        operation_id="get_metrics",
        summary="Metrics in the Prometheus text format, or OpenMetrics where asked for",
        tags=["metrics"],
        response_model=None,
        responses={
            200: {
                "content": {"text/plain": {"schema": {"type": "string"}}},
                "description": "All series of this process",
            }
        },
    )


async def _metrics(request: Request) -> Response:
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    content = encode(services_of(request).metrics.registry)
    return Response(content, headers={"Content-Type": content_type})
