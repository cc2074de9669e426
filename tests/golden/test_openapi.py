"""The published API, so that a change of it is seen and meant.

After a change that is meant, write the new document with

    OODSERVE_WRITE_GOLDEN=1 python -m pytest tests/golden/test_openapi.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from server.app import create_app
from server.draining import Drain
from server.routes.reference import describe_api
from server.settings import Settings
from tests.tiny import TinyBundle

GOLDEN = Path(__file__).parent / "openapi.json"


@pytest.fixture
def document(tiny_bundle: TinyBundle) -> dict[str, Any]:
    settings = Settings(models=tiny_bundle.repository)
    app = create_app(settings, registry=CollectorRegistry(), drain=Drain())
    described: dict[str, Any] = json.loads(json.dumps(describe_api(app)))
    return described


def test_the_api_is_the_published_one(document: dict[str, Any]) -> None:
    if os.environ.get("OODSERVE_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")

    assert document == json.loads(GOLDEN.read_text())


def test_every_refusal_has_the_form_of_an_error(document: dict[str, Any]) -> None:
    error = {"$ref": "#/components/schemas/ErrorAnswer"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for code, answer in operation["responses"].items():
                if int(code) >= 400 and path != "/v2/health/ready":
                    assert answer["content"]["application/json"]["schema"] == error


def test_every_named_schema_exists(document: dict[str, Any]) -> None:
    prefix = "#/components/schemas/"
    named = {text.split('"')[0] for text in json.dumps(document).split(f'"$ref": "{prefix}')[1:]}

    assert named <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in json.dumps(document)
