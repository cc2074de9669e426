"""The real server with more work than it can do: refused at once, counted, and nobody is harmed."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from oodserve.predictor import Predictor
from tests.conftest import StartServer
from tests.scrape import scrape
from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle, encode, id_images, id_png, make_bundle

PNG = {"Content-Type": "image/png"}
CAPACITY = 4
CLIENTS = 16


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """A model that takes a fifth of a second, or more on a busy machine."""
    repository = tmp_path_factory.mktemp("slow") / "models"
    return make_bundle(repository, "slow", work=80, calibration_images=60)


@pytest.fixture(scope="module")
def server(slow: TinyBundle) -> Iterator[ServerProcess]:
    limits = ("--max-queue-images", str(CAPACITY), "--max-images-per-request", str(CAPACITY))
    with running_server(slow.repository, *limits, "--threads", "1") as server:
        yield server


def post(server: ServerProcess, image: bytes) -> httpx.Response:
    return httpx.post(f"{server.base_url}/v1/predict", content=image, headers=PNG, timeout=60)


def test_what_does_not_fit_is_refused_at_once_and_the_rest_is_answered(
    server: ServerProcess, slow: TinyBundle
) -> None:
    images = [encode(array) for array in id_images(CLIENTS, seed=31)]
    barrier = threading.Barrier(CLIENTS)
    before = scrape(server.base_url)

    def ask(image: bytes) -> httpx.Response:
        barrier.wait()
        return post(server, image)

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, images))

    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 503}
    assert counts[200] >= CAPACITY
    predictor = Predictor.load(slow.path, threads=1)
    for image, answer in zip(images, answers, strict=True):
        if answer.status_code == 200:
            assert answer.json()["predictions"] == [predictor.predict([image])[0].to_dict()]
        else:
            assert answer.json()["error"].startswith(f"the queue is full ({CAPACITY} of {CAPACITY}")
            assert answer.headers["Retry-After"] == "1"
    after = scrape(server.base_url)
    name = "oodserve_rejected_requests_total"
    assert after.rise(before, name, reason="queue_full") == counts[503]
    refused = after.rise(before, "oodserve_requests_total", endpoint="/v1/predict", code="503")
    assert refused == counts[503]
    decided = after.rise(
        before, "oodserve_predictions_total", model="slow", calibration=slow.calibration_id
    )
    assert decided == counts[200]
    assert after.value("oodserve_queue_depth") == 0
    assert after.value("oodserve_inflight_requests") == 0
    # Everything was given back: the whole budget is there again.
    assert post(server, images[0]).status_code == 200


def test_probes_answer_while_the_queue_is_full(server: ServerProcess) -> None:
    with ThreadPoolExecutor(CAPACITY) as pool:
        busy = [pool.submit(post, server, id_png(seed=i)) for i in range(CAPACITY)]
        while scrape(server.base_url).value("oodserve_inflight_requests") == 0:
            time.sleep(0.005)
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert httpx.get(f"{server.base_url}{path}").status_code == 200
        assert {one.result().status_code for one in busy} <= {200, 503}


def test_work_of_a_client_that_left_is_dropped(server: ServerProcess) -> None:
    before = scrape(server.base_url)
    host, port = server.base_url.removeprefix("http://").split(":")
    image = id_png(seed=1)

    def request(identity: str) -> bytes:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            f"X-Request-ID: {identity}\r\nContent-Length: {len(image)}\r\n\r\n"
        )
        return head.encode() + image

    with ThreadPoolExecutor(1) as pool:
        # One that stays occupies the engine, so those that leave are still in the queue.
        stays = pool.submit(post, server, image)
        while scrape(server.base_url).value("oodserve_inflight_requests") == 0:
            time.sleep(0.002)
        sockets = [socket.create_connection((host, int(port)), timeout=10) for _ in range(2)]
        for number, connection in enumerate(sockets):
            connection.sendall(request(f"leaver-{number}"))
        for connection in sockets:
            connection.close()
        lines = [server.wait_for_line(request_id=f"leaver-{number}") for number in range(2)]
        assert stays.result().status_code == 200

    assert [line["status"] for line in lines] == [499, 499]
    assert post(server, image).status_code == 200
    after = scrape(server.base_url)
    # The one that stayed and the one after it; of those that left, none needed the engine unless
    # the machine was so busy that the first was done before they arrived.
    assert after.rise(before, "oodserve_batch_size_count", model="slow") <= 3
    assert after.value("oodserve_queue_depth") == 0


def test_an_answer_that_would_come_too_late_is_504(
    slow: TinyBundle, server_process: StartServer
) -> None:
    server = server_process(slow.repository, "--deadline-s", "0.02", "--threads", "1")

    answer = post(server, id_png(seed=1))

    assert answer.status_code == 504
    assert answer.json()["error"].startswith("no answer within the deadline of 0.02 s")
    assert "Retry-After" not in answer.headers
    metrics = scrape(server.base_url)
    assert metrics.value("oodserve_rejected_requests_total", reason="deadline") == 1
    assert httpx.get(f"{server.base_url}/v2/health/ready").status_code == 200


def test_bytes_are_bounded_over_all_requests(tmp_path: Path, server_process: StartServer) -> None:
    bundle = make_bundle(tmp_path / "models")
    server = server_process(
        bundle.repository,
        *("--max-image-bytes", "1000"),
        *("--max-body-bytes", "1000"),
        *("--max-queue-bytes", "1500"),
    )
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as held:
        held.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 900\r\n\r\n" + bytes(800)
        )
        while scrape(server.base_url).value("oodserve_inflight_requests") == 0:
            time.sleep(0.005)

        refused = post(server, bytes(701))

    assert refused.status_code == 503
    assert "the queue is full (800 of 1500 bytes" in refused.json()["error"]
    while scrape(server.base_url).value("oodserve_inflight_requests") > 0:
        time.sleep(0.005)
    assert post(server, id_png(seed=1)).status_code == 200
