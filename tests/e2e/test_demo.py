"""The demo as a user runs it, on the bundle that it made."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from export.parity import SourceModel, measure, read_batches
from oodserve.predictor import Predictor
from tests.e2e.conftest import DEMO_TIMEOUT_S, free_port
from tests.server_process import ROOT
from train.data.folders import open_splits
from train.run import load_run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def lines() -> list[dict[str, object]]:
    """What `python -m demo --once` prints; it judges itself by its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--once", "--port", str(free_port())],
        cwd=ROOT, capture_output=True, text=True, timeout=DEMO_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_once_prints_three_answers_and_the_rates(lines: list[dict[str, object]]) -> None:
    assert [line["kind"] for line in lines] == ["known", "held_out", "no_digit", "flag_rates"]
    known, _, no_digit, rates = lines
    assert re.search(r"/(\d)/", str(known["image"]))[1] == known["predictions"][0]["label"]  # type: ignore[index]
    assert no_digit["predictions"][0]["ood"] is True  # type: ignore[index]
    assert rates["held_out"] >= 5 * rates["known"]  # type: ignore[operator]
    assert (rates["known_images"], rates["held_out_images"]) == (253, 533)


def test_a_second_demo_reuses_the_bundle_and_serves_until_interrupted(
    lines: list[dict[str, object]],
) -> None:
    with _demo() as (process, url, output):
        body = httpx.get(f"{url}/v1/models/digits").json()
        assert body["active"] == "1"
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert output.count("curl -s -H 'Content-Type: image/png' --data-binary @data/digits/") == 3
    assert "models/digits is there" in messages.replace("\n", " ")


def test_torch_and_the_demos_bundle_are_equal_on_every_test_image(
    lines: list[dict[str, object]],
) -> None:
    trained = load_run(ROOT / "runs" / "digits")
    predictor = Predictor.load(ROOT / "models" / "digits")
    scorers = trained.scorers(predictor.bundle.manifest.scores)
    source = SourceModel(trained.model, scorers, trained.input, features=False)
    images = open_splits(trained.recipe.data, trained.recipe.input).test.source
    batches = read_batches(images, trained.input, indices=list(range(len(images))))
    comparison = measure(source, predictor.engine, batches)
    comparison.require_equal()
    assert comparison.images == 253


@contextmanager
def _demo() -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run the demo without `--once` until it has printed everything; ended by its pid."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", "--port", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if "until Ctrl-C" in line:
            break
    try:
        yield process, url, "".join(printed)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
