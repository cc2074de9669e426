"""The real server being told to stop: nothing accepted is lost, and nothing holds it up."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from oodserve.predictor import Predictor
from tests.conftest import StartServer
from tests.scrape import scrape
from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle, encode, id_images, id_png, make_bundle

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """A model that takes a fifth of a second, or more on a busy machine."""
    repository = tmp_path_factory.mktemp("slow") / "models"
    return make_bundle(repository, "slow", work=80, calibration_images=60)


@dataclass
class Client:
    """Sends one image after the other until the server takes no more connections."""

    address: tuple[str, int]
    image: bytes
    score: float
    keeps_alive: bool
    answered: int = 0
    closing: int = 0
    """Answers that said that the connection will not be kept."""
    lost: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Send until refused; anything that ends another way is a loss."""
        connection: socket.socket | None = None
        while True:
            if connection is None:
                try:
                    connection = socket.create_connection(self.address, timeout=30)
                except ConnectionRefusedError:
                    return
            try:
                must_close = self._exchange(connection)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.lost.append(f"{type(error).__name__}: {error}")
                connection.close()
                return
            if must_close or not self.keeps_alive:
                connection.close()
                connection = None

    def _exchange(self, connection: socket.socket) -> bool:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            f"Content-Length: {len(self.image)}\r\n\r\n"
        )
        connection.sendall(head.encode() + self.image)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        text = answer.read().decode()
        assert answer.status == 200, text
        assert f'"score":{self.score!r}' in text
        self.answered += 1
        must_close = answer.headers.get("connection") == "close"
        self.closing += must_close
        return must_close


def address_of(server: ServerProcess) -> tuple[str, int]:
    host, port = server.base_url.removeprefix("http://").split(":")
    return host, int(port)


def test_under_load_no_accepted_request_is_lost(
    tiny_bundle: TinyBundle, server_process: StartServer
) -> None:
    server = server_process(tiny_bundle.repository, "--drain-delay-s", "0.6")
    images = [encode(array) for array in id_images(8, seed=51)]
    scores = [one.score for one in Predictor.load(tiny_bundle.path).predict(images)]
    clients = [
        Client(address_of(server), image, score, keeps_alive=place % 2 == 0)
        for place, (image, score) in enumerate(zip(images, scores, strict=True))
    ]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    while min(client.answered for client in clients) < 3:
        time.sleep(0.01)

    server.process.send_signal(signal.SIGTERM)

    # Not ready from the first moment on, alive as long as it listens.
    statuses = []
    while True:
        try:
            live = httpx.get(f"{server.base_url}/v2/health/live")
            ready = httpx.get(f"{server.base_url}/v2/health/ready")
        except httpx.ConnectError:
            break
        statuses.append((live.status_code, ready.status_code))
        if ready.status_code == 503:
            assert "draining" in ready.json()["reasons"]["server"]
            assert ready.headers["connection"] == "close"
    for thread in threads:
        thread.join()
    assert server.process.wait(timeout=20) == 0
    assert [client.lost for client in clients] == [[]] * len(clients)
    assert set(statuses) <= {(200, 200), (200, 503)}
    assert statuses[-1] == (200, 503)
    # The delay kept serving: these were answered after the signal.
    assert sum(client.closing for client in clients) >= 1
    assert server.wait_for_line(event="stopped")["abandoned_requests"] == 0


def test_a_request_in_the_middle_is_finished(slow: TinyBundle, server_process: StartServer) -> None:
    server = server_process(slow.repository, "--threads", "1")
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(
            httpx.post(
                f"{server.base_url}/v1/predict", content=id_png(seed=1), headers=PNG, timeout=60
            )
        )

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while scrape(server.base_url).value("oodserve_inflight_requests") < 3:
        time.sleep(0.002)

    server.process.send_signal(signal.SIGTERM)

    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert server.process.wait(timeout=20) == 0


def test_an_idle_browser_connection_does_not_hold_it_up(
    tiny_bundle: TinyBundle, server_process: StartServer
) -> None:
    server = server_process(tiny_bundle.repository)
    with (
        socket.create_connection(address_of(server), timeout=10) as idle,
        socket.create_connection(address_of(server), timeout=10),
    ):
        idle.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        answer = http.client.HTTPResponse(idle)
        answer.begin()
        assert (answer.status, answer.read()[:1]) == (200, b"{")

        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(timeout=20) == 0
        assert idle.recv(1) == b""
    stopped = server.wait_for_line(event="stopped")
    draining = server.wait_for_line(event="draining")
    assert stopped["time"] > draining["time"]


def test_a_connection_that_was_kept_is_served_once_more_while_draining(
    tiny_bundle: TinyBundle, server_process: StartServer
) -> None:
    server = server_process(tiny_bundle.repository, "--drain-delay-s", "5")
    with httpx.Client(base_url=server.base_url) as client:
        assert "connection" not in client.get("/v1/models").headers

        server.process.send_signal(signal.SIGTERM)
        server.wait_for_line(event="draining")
        answer = client.post("/v1/predict", content=id_png(seed=1), headers=PNG)

        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"


@pytest.fixture
def stalled(tiny_bundle: TinyBundle) -> Iterator[tuple[ServerProcess, socket.socket]]:
    """A server, and a client that has sent half of a body."""
    with (
        running_server(tiny_bundle.repository, "--drain-timeout-s", "0.5") as server,
        socket.create_connection(address_of(server), timeout=30) as client,
    ):
        client.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 100\r\n\r\nabc"
        )
        while scrape(server.base_url).value("oodserve_inflight_requests") == 0:
            time.sleep(0.002)
        yield server, client


def test_what_is_not_finished_in_time_is_told_so_and_shows_in_the_exit_status(
    stalled: tuple[ServerProcess, socket.socket],
) -> None:
    server, client = stalled

    server.process.send_signal(signal.SIGTERM)

    received = client.recv(65536)
    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in received.lower()
    assert b"the server is shutting down and could not finish this" in received
    assert server.process.wait(timeout=20) == 1
    assert server.wait_for_line(event="stopped")["abandoned_requests"] == 1


def test_a_second_signal_ends_it_at_once(
    tiny_bundle: TinyBundle, server_process: StartServer
) -> None:
    server = server_process(tiny_bundle.repository, "--drain-delay-s", "60")

    server.process.send_signal(signal.SIGTERM)
    server.wait_for_line(event="draining")
    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(timeout=10) == 128 + signal.SIGTERM


def test_ctrl_c_does_not_wait_for_load_balancers(
    tiny_bundle: TinyBundle, server_process: StartServer
) -> None:
    server = server_process(tiny_bundle.repository, "--drain-delay-s", "60")

    server.process.send_signal(signal.SIGINT)

    assert server.process.wait(timeout=20) == 0


def test_it_can_be_stopped_while_models_load(tmp_path: Path, server_process: StartServer) -> None:
    bundle = make_bundle(tmp_path / "models", "slow", work=80, calibration_images=60)
    server = server_process(bundle.repository, "--threads", "1", ready=False)

    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(timeout=20) == 0
