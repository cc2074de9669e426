"""The application: everything put together from settings and a registry, nothing global."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from oodserve.engines.onnxruntime import usable_cpus
from server.admission import Admission
from server.boundary import QUIET, Boundary
from server.draining import Drain
from server.failures import add_handlers
from server.inference import DecodePool
from server.metrics import UNMATCHED, Metrics
from server.models import ModelRepository
from server.routes import console, health, metrics, models, predict, reference
from server.services import Services
from server.settings import Settings

MAX_DECODE_THREADS = 4
"""Default bound: each may hold the pixels of one image of `max_image_pixels`."""


def create_app(settings: Settings, *, registry: CollectorRegistry, drain: Drain) -> FastAPI:
    """Return the application; its models load once it starts.

    Parameters
    ----------
    settings : Settings
        What to serve, and within which limits.
    registry : CollectorRegistry
        A fresh one.
    drain : Drain
        Shared with whatever receives signals.

    Raises
    ------
    BundleError, ConfigurationError
        There is no model repository, or the settings do not fit it.
    """
    measures = Metrics(registry)
    services = Services(
        settings=settings,
        metrics=measures,
        repository=ModelRepository(settings, measures),
        admission=Admission(
            max_images=settings.max_queue_images, max_bytes=settings.max_queue_bytes
        ),
        pool=DecodePool(threads=settings.decode_threads or min(MAX_DECODE_THREADS, usable_cpus())),
        drain=drain,
    )
    app = FastAPI(
        lifespan=_lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.services = services
    app.add_middleware(Boundary, metrics=measures, drain=drain)
    add_handlers(app)
    for part in (predict, models, health, metrics, console, reference):
        part.add_routes(app)
    measures.expect_endpoints(_expected_codes(app))
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load models in a thread while probes are answered already; release them at the end."""
    services: Services = app.state.services
    loading = asyncio.create_task(asyncio.to_thread(services.repository.load_all))
    try:
        yield
    finally:
        services.repository.close()
        services.pool.close()
        await loading


def _expected_codes(app: FastAPI) -> dict[str, set[int]]:
    """Return the status codes that each route template declares, probes left out."""
    codes = {
        route.path: {200, *map(int, route.responses)}
        for route in app.routes
        if isinstance(route, APIRoute) and route.path not in QUIET
    }
    return {**codes, UNMATCHED: {404}}
