"""The real server's pages for people: the console and the API's reference."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html import escape

import httpx
import pytest

from server.routes.console import WEB
from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle


@pytest.fixture(scope="module")
def server(tiny_bundle: TinyBundle) -> Iterator[ServerProcess]:
    with running_server(tiny_bundle.repository) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url) as client:
        yield client


def test_the_console_is_served_at_the_root(client: httpx.Client) -> None:
    answer = client.get("/")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.content == (WEB / "index.html").read_bytes()


def test_every_file_of_the_console_is_served_and_revalidated(client: httpx.Client) -> None:
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    files = [path for path in WEB.iterdir() if path.suffix in kinds]
    assert {path.suffix for path in files} == set(kinds)
    for path in files:
        answer = client.get(f"/static/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"].startswith(kinds[path.suffix])
        assert answer.headers["cache-control"] == "no-cache"
        tag = {"If-None-Match": answer.headers["etag"]}
        assert client.get(f"/static/{path.name}", headers=tag).status_code == 304


def test_static_files_are_one_endpoint_in_the_metrics(client: httpx.Client) -> None:
    client.get("/static/index.html")
    client.get("/static/nothing")

    text = client.get("/metrics").text

    assert 'oodserve_requests_total{code="200",endpoint="/static/{path:path}"}' in text
    assert "nothing" not in text


def test_the_reference_lists_every_operation(client: httpx.Client) -> None:
    page = client.get("/docs").text
    document = client.get("/openapi.json").json()

    assert len(document["paths"]) >= 9
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"<h2>{method.upper()} <code>{path}</code></h2>" in page
            assert escape(operation["summary"]).split("`")[0] in page


def test_the_reference_needs_no_script_and_no_other_host(client: httpx.Client) -> None:
    answer = client.get("/docs")
    policy = answer.headers["content-security-policy"]
    style = re.search("<style>(.*)</style>", answer.text, re.DOTALL)

    assert "<script" not in answer.text
    links = re.findall(r'(?:href|src)="([^"]*)"', answer.text)
    assert links
    assert all(link.startswith(("/", "#")) for link in links)
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]*)"', answer.text))
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
