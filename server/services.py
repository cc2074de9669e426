"""What routes work with: made once with the application, and found through a request."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from server.admission import Admission
from server.draining import Drain
from server.inference import DecodePool
from server.metrics import Metrics
from server.models import ModelRepository
from server.settings import Settings


@dataclass(frozen=True)
class Services:
    """The parts of one server."""

    settings: Settings
    metrics: Metrics
    repository: ModelRepository
    admission: Admission
    pool: DecodePool
    drain: Drain


def services_of(request: Request) -> Services:
    """Return the services of the application that a request came to."""
    services: Services = request.app.state.services
    return services
