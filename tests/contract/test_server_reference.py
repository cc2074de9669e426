"""The reference names every setting, route, status, reason and metric, and no other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from oodserve.errors import ConfigurationError
from server.app import create_app
from server.draining import Drain
from server.protocol import MAX_HEAD_BYTES
from server.settings import Settings, flag, variable
from server.statuses import REASONS, TABLE
from tests.tiny import TinyBundle

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "server.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """Return the cells of a table by its first column, without backticks."""
    table = PAGE.split(heading, 1)[1].split("\n|---", 1)[1].split("\n\n", 1)[0]
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in table.splitlines()[1:]
    ]
    return {row[0]: row for row in cells}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def app(tiny_bundle: TinyBundle, registry: CollectorRegistry) -> FastAPI:
    settings = Settings(models=tiny_bundle.repository)
    return create_app(settings, registry=registry, drain=Drain())


def test_every_setting_is_documented_with_its_variable_unit_and_default() -> None:
    expected = {
        flag(item.name): [
            variable(item.name),
            item.metadata["unit"],
            "none" if item.default is None else str(item.default).lower(),
        ]
        for item in dataclasses.fields(Settings)
    }

    assert {name: row[1:4] for name, row in rows("## Settings").items()} == expected


def test_every_route_is_documented(app: FastAPI) -> None:
    expected = {
        f"{method} {route.path}".replace("{path:path}", "{path}")
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }

    assert set(rows("## Routes")) == expected


def test_every_status_is_documented(app: FastAPI) -> None:
    declared = {
        int(code)
        for route in app.routes
        if isinstance(route, APIRoute)
        for code in route.responses
        if int(code) != 200
    }
    # 405 and 431 are answered before a route is reached.
    expected = declared | {405, 431} | {row.status for row in TABLE.values()}

    assert set(map(int, rows("### Errors"))) == expected
    assert MAX_HEAD_BYTES == 64 * 1024


def test_every_metric_is_documented_with_its_type_and_labels(
    app: FastAPI, registry: CollectorRegistry
) -> None:
    app.state.services.repository.load_all()
    found = {
        name: (row[1], set(row[2].split(", ")) - {"-"}) for name, row in rows("## Met").items()
    }

    expected = {
        family.name + "_total" * (family.type == "counter"): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in registry.collect()
        if family.name.startswith("oodserve_")
    }

    assert found == expected


def test_every_reason_is_documented() -> None:
    assert tuple(rows("Reasons of")) == REASONS


def test_every_event_of_the_log_is_documented() -> None:
    calls = re.compile(r'LOG\.(?:info|error|exception|log)\(\s*(?:level,\s*)?"([a-z_ ]+)"')
    server = Path(__file__).parents[2] / "server"
    events = {event for path in server.glob("**/*.py") for event in calls.findall(path.read_text())}
    events |= {"model_ready", "model_failed"}

    assert {"request", "listening", "unexpected error"} <= events
    for event in events:
        assert f"`{event}`" in PAGE


def test_the_number_of_models_is_bounded_as_documented(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / str(number)).mkdir()

    with pytest.raises(ConfigurationError, match="whose metrics hold 8"):
        create_app(Settings(models=tmp_path), registry=CollectorRegistry(), drain=Drain())
