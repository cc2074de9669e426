"""A real browser, and the servers whose console it opens."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.e2e.console_page import ConsolePage
from tests.server_process import ROOT, ServerProcess, running_server
from tests.tiny import TinyBundle

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGE_TIMEOUT_MS = 15_000
DEMO_TIMEOUT_S = 1500.0

OpenConsole = Callable[..., ConsolePage]


def _absent(what: str) -> NoReturn:
    """Skip on a person's machine; where tests gate a merge, a browser has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; the checks that gate a merge need one")
    pytest.skip(what)


def _executable(playwright: Playwright) -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and Path(playwright.chromium.executable_path).exists():
        found = playwright.chromium.executable_path
    return found or _absent(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=_executable(playwright), args=BROWSER_ARGUMENTS
        )
        yield started
        started.close()


@pytest.fixture
def open_console(browser: Browser) -> Iterator[OpenConsole]:
    """Open the console of a server: `open_console(base_url, **context_options)`.

    Whatever a test does, the page asks no other host, breaks no rule of its security policy and
    leaves no exception uncaught.
    """
    opened: list[ConsolePage] = []

    def open_page(base_url: str, **options: object) -> ConsolePage:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(PAGE_TIMEOUT_MS)
        console = ConsolePage(context.new_page(), base_url)
        opened.append(console)
        console.open()
        return console

    yield open_page
    for console in opened:
        console.page.context.close()
        broken = [m for m in console.messages if "Content Security" in m or "uncaught" in m]
        assert broken == []
        assert console.foreign_urls() == []


@pytest.fixture(scope="session")
def tiny_server(tiny_bundle: TinyBundle) -> Iterator[ServerProcess]:
    """The real server with the tiny model."""
    with running_server(tiny_bundle.repository) as server:
        yield server


@pytest.fixture(scope="session")
def digits_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The real server with the digits model; the demo makes the model where there is none."""
    model = ROOT / "models" / "digits"
    if not (model / "1" / "calibration.json").exists():
        command = [sys.executable, "-m", "demo", "--once", "--port", str(free_port())]
        subprocess.run(command, cwd=ROOT, check=True, timeout=DEMO_TIMEOUT_S)
    # Alone in its repository, so that no other model of the checkout plays a part.
    repository = tmp_path_factory.mktemp("digits") / "models"
    shutil.copytree(model, repository / "digits")
    with running_server(repository) as server:
        yield server


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
