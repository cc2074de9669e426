"""The server under steady mixed load for a long time: `make soak`, by hand.

`OODSERVE_SOAK_S` sets the length, 600 s by default.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle, id_png, ood_png

SECONDS = float(os.environ.get("OODSERVE_SOAK_S", "600"))
MOST_REQUESTS = 2_000_000
CLIENTS = 8
GROWTH_BYTES = 32 * 2**20
"""What caches and arenas may still take after the warm-up; a leak of 100 bytes a request shows."""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(int(SECONDS) + 300)]


def _descriptors(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def _load(base_url: str, seconds: float) -> int:
    """Send good, flagged and broken images from several clients; return how many were answered."""
    end = time.monotonic() + seconds
    bodies = [(id_png(seed=1), 200), (ood_png(seed=1), 200), (id_png(seed=1)[:60], 422)]

    def client(number: int) -> int:
        answered = 0
        with httpx.Client(base_url=base_url, timeout=30) as session:
            while time.monotonic() < end and answered < MOST_REQUESTS // CLIENTS:
                body, status = bodies[(answered + number) % len(bodies)]
                got = session.post(
                    "/v1/predict", content=body, headers={"Content-Type": "image/png"}
                )
                assert got.status_code == status, got.text
                answered += 1
        return answered

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS)))


def test_memory_and_descriptors_stay_flat(tiny_bundle: TinyBundle) -> None:
    with running_server(tiny_bundle.repository) as server:
        _load(server.base_url, min(30.0, SECONDS / 10))
        memory, descriptors = server.rss_bytes(), _descriptors(server)
        answered = _load(server.base_url, SECONDS)
        time.sleep(1)
        print(  # noqa: T201 - the figures of a soak are its result
            f"{answered} requests in {SECONDS:g} s; RSS {memory / 2**20:.0f} to "
            f"{server.rss_bytes() / 2**20:.0f} MiB; descriptors {descriptors} to "
            f"{_descriptors(server)}"
        )
        assert server.rss_bytes() <= memory + GROWTH_BYTES
        assert _descriptors(server) <= descriptors + 8
