"""The real server: what it exposes, parsed and compared with what was sent."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from oodserve.predictor import Predictor
from server.metrics import P_VALUE_BUCKETS, smoothing_u
from tests.scrape import Scrape, scrape
from tests.server_process import ServerProcess, running_server
from tests.tiny import CLASSES, SCORES, TinyBundle, encode, id_images, make_bundle, ood_images

PNG = {"Content-Type": "image/png"}


@dataclass(frozen=True)
class Traffic:
    """What was sent to a fresh server, and what it showed before and after."""

    before: Scrape
    after: Scrape
    images: list[bytes]
    """In the order of `identities`; the last two went in one request."""
    identities: list[tuple[str, int]]
    """Request id and place in the request, for each image."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("metrics") / "models")


@pytest.fixture(scope="module")
def server(tiny: TinyBundle) -> Iterator[ServerProcess]:
    with running_server(tiny.repository) as server:
        yield server


@pytest.fixture(scope="module")
def traffic(server: ServerProcess) -> Traffic:
    """Thirty images alone, two in one form with one that is none, one refused request."""
    arrays = [*id_images(22, seed=41), *ood_images(10, seed=42)]
    images = [encode(array) for array in arrays]
    before = scrape(server.base_url)
    identities: list[tuple[str, int]] = []
    with httpx.Client(base_url=server.base_url) as client:
        for number, image in enumerate(images[:-2]):
            headers = {**PNG, "X-Request-ID": f"sent-{number}"}
            query = {"score_name": SCORES[number % 3]}
            answer = client.post("/v1/predict", content=image, headers=headers, params=query)
            assert answer.status_code == 200
            identities.append((f"sent-{number}", 0))
        files = [("a", ("a", data)) for data in (images[-2], b"no image", images[-1])]
        headers = {"X-Request-ID": "form"}
        assert client.post("/v1/models/tiny/predict", files=files, headers=headers).is_success
        identities += [("form", 0), ("form", 2)]
        assert client.post("/v1/predict", content=b"", headers=PNG).status_code == 400
        assert client.get("/nowhere/else").status_code == 404
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
            assert client.get(path).is_success
    return Traffic(before, scrape(server.base_url), images, identities)


@pytest.fixture(scope="module")
def outputs(tiny: TinyBundle, traffic: Traffic) -> dict[str, list[float]]:
    """Scores of every image sent, by score name, from the same model in this process."""
    predictor = Predictor.load(tiny.path)
    return {
        name: [predictor.predict([image], score_name=name)[0].score for image in traffic.images]
        for name in SCORES
    }


def labels_of(tiny: TinyBundle, score: str | None = None) -> dict[str, str | None]:
    labels: dict[str, str | None] = {"model": "tiny", "calibration": tiny.calibration_id}
    return labels if score is None else {**labels, "score": score}


def test_images_are_counted_once_whatever_request_they_came_in(
    traffic: Traffic, tiny: TinyBundle
) -> None:
    name = "oodserve_predictions_total"

    assert traffic.before.value(name, **labels_of(tiny)) == 0
    assert traffic.after.value(name, **labels_of(tiny)) == len(traffic.images) == 32


@pytest.mark.parametrize("score", SCORES)
def test_flags_are_counted_for_every_score_whichever_decided(
    traffic: Traffic, tiny: TinyBundle, outputs: dict[str, list[float]], score: str
) -> None:
    assert tiny.calibration is not None
    tau = tiny.calibration.scores[score].tau
    expected = sum(value < tau for value in outputs[score])

    assert 10 <= expected < 32
    flags = traffic.after.value("oodserve_ood_flags_total", **labels_of(tiny, score))
    assert flags == expected


@pytest.mark.parametrize("score", SCORES)
def test_the_p_value_histogram_holds_every_smoothed_p_value(
    traffic: Traffic, tiny: TinyBundle, outputs: dict[str, list[float]], score: str
) -> None:
    assert tiny.calibration is not None
    u = [smoothing_u(identity, place) for identity, place in traffic.identities]
    expected = tiny.calibration.scores[score].smoothed_p_values(outputs[score], u)

    labels = labels_of(tiny, score)
    name = "oodserve_ood_p_value"
    assert traffic.after.value(f"{name}_count", **labels) == 32
    assert traffic.after.value(f"{name}_sum", **labels) == pytest.approx(expected.sum())
    for edge in P_VALUE_BUCKETS:
        bucket = traffic.after.value(f"{name}_bucket", **labels, le=str(edge))
        assert bucket == np.sum(expected <= edge)
    edges = {dict(found)["le"] for found in traffic.after.named(f"{name}_bucket")}
    assert edges == {*map(str, P_VALUE_BUCKETS), "+Inf"}


def test_thresholds_and_guarantees_are_those_of_the_calibration(
    traffic: Traffic, tiny: TinyBundle
) -> None:
    assert tiny.calibration is not None
    for name, score in tiny.calibration.scores.items():
        labels = labels_of(tiny, name)
        assert traffic.after.value("oodserve_ood_threshold", **labels) == score.tau
        assert traffic.after.value("oodserve_calibration_samples", **labels) == 400
        upper = traffic.after.value("oodserve_calibration_rejection_upper_ratio", **labels)
        assert upper == score.rejection_upper
        alpha = traffic.after.value("oodserve_calibration_target_rejection_ratio", **labels)
        assert alpha == pytest.approx(1 - score.target_tpr)


def test_predicted_classes_are_counted(traffic: Traffic, tiny: TinyBundle) -> None:
    predictor = Predictor.load(tiny.path)
    predicted = [predictor.predict([image])[0].label for image in traffic.images]

    for name in CLASSES:
        labels = {**labels_of(tiny), "class": name}
        counted = traffic.after.value("oodserve_predicted_class_total", **labels)
        assert counted == predicted.count(name)
        assert traffic.after.value("oodserve_predicted_class_reference_ratio", **labels) == 0.25


def test_requests_are_counted_by_template_and_code(traffic: Traffic) -> None:
    expected = {
        ("/v1/predict", "200"): 30,
        ("/v1/predict", "400"): 1,
        ("/v1/models/{model}/predict", "200"): 1,
        ("unmatched", "404"): 1,
    }
    counts = traffic.after.named("oodserve_requests_total")
    found = {
        (dict(labels)["endpoint"], dict(labels)["code"]): value for labels, value in counts.items()
    }

    assert {key: value for key, value in found.items() if value} == expected
    # What can happen starts at 0, so that its first increase is seen.
    assert found["/v1/predict", "503"] == 0
    assert found["/v1/models/{model}/versions/{version}/predict", "200"] == 0
    # Probes and scrapes are not traffic.
    assert not {endpoint for endpoint, _ in found} & {
        "/v2/health/live",
        "/v2/health/ready",
        "/metrics",
    }


def test_durations_batches_and_rejections_add_up(traffic: Traffic) -> None:
    after = traffic.after

    count = after.value("oodserve_request_duration_seconds_count", endpoint="/v1/predict")
    total = after.value("oodserve_request_duration_seconds_sum", endpoint="/v1/predict")
    assert count == 31
    assert 0 < total < 30
    stages = {"decode": 32, "preprocess": 32, "queue": 31, "infer": 31, "score": 31}
    for stage, expected in stages.items():
        assert after.value("oodserve_stage_duration_seconds_count", stage=stage) == expected
    assert after.value("oodserve_batch_size_count", model="tiny") == 31
    assert after.value("oodserve_batch_size_sum", model="tiny") == 32
    assert after.value("oodserve_batch_size_bucket", model="tiny", le="1.0") == 30
    assert after.value("oodserve_rejected_requests_total", reason="unsupported") == 1
    assert after.value("oodserve_rejected_requests_total", reason="decode") == 1
    assert after.value("oodserve_rejected_requests_total", reason="queue_full") == 0
    assert after.value("oodserve_nonfinite_scores_total", model="tiny") == 0
    assert after.value("oodserve_queue_depth") == 0
    assert after.value("oodserve_inflight_requests") == 0


def test_the_server_says_what_it_is(traffic: Traffic, tiny: TinyBundle) -> None:
    sha = tiny.bundle.manifest.model.sha256[:12]
    info = traffic.after.value("oodserve_model_info", **labels_of(tiny), version="1", sha=sha)
    build = [dict(labels) for labels in traffic.after.named("oodserve_build_info")]
    loaded = traffic.after.value("oodserve_model_load_timestamp_seconds", model="tiny")

    assert info == 1
    assert traffic.after.value("oodserve_model_loaded", model="tiny") == 1
    assert [one["python"] for one in build] == [platform.python_version()]
    assert build[0]["framework"].startswith("onnxruntime ")
    assert 0 < time.time() - loaded < 600
    made = traffic.after.value("oodserve_calibration_timestamp_seconds", **labels_of(tiny))
    assert made == 1_769_860_800
    assert traffic.after.value("process_resident_memory_bytes") > 10_000_000
    assert traffic.after.value("process_open_fds") > 3


def test_there_is_no_series_that_nobody_reads(traffic: Traffic) -> None:
    names = {name for name, _ in traffic.after.samples}

    assert not [name for name in names if name.endswith("_created")]
    assert not [name for name in names if not name.startswith(("oodserve_", "process_"))]
    assert len(traffic.after.samples) < 500


def test_openmetrics_is_spoken_where_asked_for(server: ServerProcess, traffic: Traffic) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}

    answer = httpx.get(f"{server.base_url}/metrics", headers=accept)

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    parsed = text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
    families = {family.name for family in parsed}
    assert "oodserve_predictions" in families
    assert traffic.identities
