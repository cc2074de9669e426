"""What the console shows when there is no answer: refusals, servers not ready or not there."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import expect

from tests.conftest import MakeBundle, StartServer
from tests.e2e.conftest import OpenConsole, free_port
from tests.e2e.console_page import KNOWN, STRANGE, Upload
from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle

pytestmark = pytest.mark.e2e

DASH = "\N{EN DASH}"


def refusal(server: ServerProcess, upload: Upload) -> str:
    """Return the error text for a file, asked for without a browser."""
    answer = httpx.post(
        f"{server.base_url}/v1/predict",
        content=upload.content,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert answer.is_client_error
    return str(answer.json()["error"])


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_what_is_no_file_is_explained(
    tiny_server: ServerProcess, open_console: OpenConsole, way: str
) -> None:
    console = open_console(tiny_server.base_url)
    getattr(console, way)(text="https://example.org/cat.png")
    expect(console.locate("error")).to_contain_text("Nothing to send")
    console.locate("error-dismiss").click()
    expect(console.locate("error")).to_be_hidden()
    expect(console.locate("verdict")).to_be_visible()


@pytest.mark.parametrize(
    ("upload", "status"),
    [
        (Upload("notes.txt", b"these are words", "text/plain"), 415),
        (Upload("cut off.png", KNOWN.content[:-30]), 422),
        (Upload("empty.png", b""), 400),
        (Upload("too large.png", KNOWN.content + bytes(60_000)), 413),
    ],
    ids=["no image", "undecodable", "empty", "too large"],
)
def test_a_file_without_an_answer_gets_the_servers_reason(
    tiny_bundle: TinyBundle,
    server_process: StartServer,
    open_console: OpenConsole,
    upload: Upload,
    status: int,
) -> None:
    server = server_process(
        tiny_bundle.repository, "--max-image-bytes", "50000", "--max-body-bytes", "60000"
    )
    console = open_console(server.base_url)
    with console.answering():
        console.choose(KNOWN)
    console.choose(upload)
    expect(console.locate("error-text")).to_have_text(refusal(server, upload))
    expect(console.locate("error-context")).to_contain_text(f"{upload.name}: HTTP {status}")
    for element_id in ("label", "score", "threshold", "p-value", "request-id", "curl"):
        expect(console.locate(element_id)).to_have_text(DASH)
    assert console.verdict == "none"
    with console.answering():
        console.choose(STRANGE)
    expect(console.locate("error")).to_be_hidden()


def test_a_model_that_is_not_ready_is_named_with_its_reason(
    bundle_maker: MakeBundle, server_process: StartServer, open_console: OpenConsole
) -> None:
    works = bundle_maker("works")
    bundle_maker("uncalibrated", calibrated=False)
    server = server_process(works.repository, ready=False)
    server.wait_loaded()
    reasons = httpx.get(f"{server.base_url}/v2/health/ready").json()["reasons"]
    console = open_console(server.base_url)
    expect(console.locate("status")).to_have_text("Not ready")
    expect(console.locate("not-ready-reasons").locator("dt")).to_have_text(["uncalibrated"])
    expect(console.locate("not-ready-reasons").locator("dd")).to_have_text(
        [reasons["uncalibrated"]]
    )
    with console.answering():
        console.drop(KNOWN)
    assert console.text("served-by") == "works, 1"
    console.locate("model").select_option("uncalibrated")
    console.drop(KNOWN)
    expect(console.locate("error-text")).to_contain_text("uncalibrated")
    expect(console.locate("error-context")).to_contain_text("HTTP 503")


def test_the_page_outlives_its_server_and_sends_what_has_been_waiting(
    tiny_bundle: TinyBundle, open_console: OpenConsole
) -> None:
    port = ("--port", str(free_port()))
    with running_server(tiny_bundle.repository, *port) as server:
        console = open_console(server.base_url)
    console.drop(KNOWN)
    expect(console.locate("error")).to_contain_text("The server cannot be reached")
    expect(console.locate("status")).to_have_text("Not reachable")
    expect(console.locate("not-ready")).to_be_visible()
    with running_server(tiny_bundle.repository, *port):
        expect(console.locate("status")).to_have_text("Ready")
        expect(console.locate("verdict")).to_have_text("IN distribution")
        expect(console.locate("error")).to_be_hidden()
        expect(console.locate("not-ready")).to_be_hidden()
