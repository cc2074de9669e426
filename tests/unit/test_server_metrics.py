"""The metrics by themselves: what is counted for one decision, and what is begun at 0."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from oodserve.calibration import Calibration, Runtime, calibrate
from oodserve.errors import ConfigurationError
from oodserve.predictor import ActiveCalibration, Predictor
from server.metrics import (
    MAX_MODELS,
    OTHER,
    P_VALUE_BUCKETS,
    TOP_CLASSES,
    DecisionSeries,
    Metrics,
    class_shares,
    smoothing_u,
)
from server.statuses import REASONS
from tests.tiny import TinyBundle, id_png, ood_png


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_series_known_at_start_begin_at_0(metrics: Metrics) -> None:
    metrics.expect_models(["a", "b"])
    metrics.expect_endpoints({"/v1/predict": [200, 503], "unmatched": [404]})

    for reason in REASONS:
        assert value(metrics, "oodserve_rejected_requests_total", reason=reason) == 0
    for stage in ("decode", "preprocess", "queue", "infer", "score"):
        assert value(metrics, "oodserve_stage_duration_seconds_count", stage=stage) == 0
    for endpoint, code in (("/v1/predict", "200"), ("/v1/predict", "503"), ("unmatched", "404")):
        assert value(metrics, "oodserve_requests_total", endpoint=endpoint, code=code) == 0
    assert value(metrics, "oodserve_model_loaded", model="b") == 0
    assert value(metrics, "oodserve_nonfinite_scores_total", model="b") == 0
    assert value(metrics, "oodserve_queue_depth") == 0
    assert value(metrics, "oodserve_inflight_requests") == 0


def test_too_many_models_are_refused_at_start(metrics: Metrics) -> None:
    names = [f"m{i}" for i in range(MAX_MODELS + 1)]

    with pytest.raises(ConfigurationError, match=r"9 models are too many .*, whose metrics hold 8"):
        metrics.expect_models(names)


def test_a_decision_is_counted_under_every_calibrated_score(
    metrics: Metrics, tiny_bundle: TinyBundle
) -> None:
    predictor = Predictor.load(tiny_bundle.path, threads=1)
    assert predictor.active is not None
    active = predictor.active
    series = DecisionSeries(metrics, predictor.bundle, active)
    inside, outside = predictor.predict([id_png(seed=1), ood_png(seed=1)])
    scores = {"energy": inside.score, "msp": 0.0, "max_logit": 100.0}

    series.observe(inside, scores, u=0.5)
    series.observe(outside, {"energy": outside.score}, u=0.5)

    labels = {"model": "tiny", "calibration": active.id}
    assert value(metrics, "oodserve_predictions_total", **labels) == 2
    flags = {
        name: value(metrics, "oodserve_ood_flags_total", **labels, score=name) for name in scores
    }
    assert flags == {"energy": 1, "msp": 1, "max_logit": 0}
    counts = {
        name: value(metrics, "oodserve_ood_p_value_count", **labels, score=name) for name in scores
    }
    assert counts == {"energy": 2, "msp": 1, "max_logit": 1}
    # 400 calibration images, none as low as 0: (0 + 0.5 * 1) / 401; none as high as 100: all but.
    lowest = value(metrics, "oodserve_ood_p_value_sum", **labels, score="msp")
    highest = value(metrics, "oodserve_ood_p_value_sum", **labels, score="max_logit")
    assert lowest == pytest.approx(0.5 / 401)
    assert highest == pytest.approx(400.5 / 401)
    red = value(metrics, "oodserve_predicted_class_total", **labels, **{"class": "red"})
    assert inside.label == "red"
    assert red == 1 + (outside.label == "red")


def test_gauges_show_the_calibration_in_force(metrics: Metrics, tiny_bundle: TinyBundle) -> None:
    calibration, identity = tiny_bundle.calibration, tiny_bundle.calibration_id
    assert calibration is not None
    assert identity is not None
    metrics.show_active(tiny_bundle.bundle, ActiveCalibration(id=identity, calibration=calibration))

    labels = {"model": "tiny", "calibration": identity}
    for name, score in calibration.scores.items():
        of_score = {**labels, "score": name}
        assert value(metrics, "oodserve_ood_threshold", **of_score) == score.tau
        assert value(metrics, "oodserve_calibration_samples", **of_score) == score.n
        alpha = value(metrics, "oodserve_calibration_target_rejection_ratio", **of_score)
        assert alpha == pytest.approx(0.05)
        upper = value(metrics, "oodserve_calibration_rejection_upper_ratio", **of_score)
        assert upper == score.rejection_upper
    made = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
    assert value(metrics, "oodserve_calibration_timestamp_seconds", **labels) == made
    assert value(metrics, "oodserve_model_loaded", model="tiny") == 1
    sha = tiny_bundle.bundle.manifest.model.sha256[:12]
    assert value(metrics, "oodserve_model_info", **labels, version="1", sha=sha) == 1
    shares = [
        value(metrics, "oodserve_predicted_class_reference_ratio", **labels, **{"class": name})
        for name in tiny_bundle.bundle.manifest.classes
    ]
    assert sum(share or 0.0 for share in shares) == pytest.approx(1.0)


def sixty_classes() -> tuple[tuple[str, ...], Calibration]:
    """Sixty class names, and a calibration on which class i was predicted i times."""
    predicted = np.repeat(np.arange(60), np.arange(60))
    calibration = calibrate(
        {"energy": np.linspace(0.0, 1.0, predicted.size)},
        predicted,
        n_classes=60,
        rule="pac",
        target_tpr=0.95,
        confidence=0.95,
        model_sha256=hashlib.sha256(b"").hexdigest(),
        input_sha256=hashlib.sha256(b"").hexdigest(),
        runtime=Runtime(library="onnxruntime", provider="cpu", precision="fp32"),
        data_fingerprint="x",
        default_score="energy",
        created="2026-01-31T12:00:00Z",
    )
    return tuple(f"c{i}" for i in range(60)), calibration


def test_only_the_most_frequent_classes_have_series_of_their_own() -> None:
    classes, calibration = sixty_classes()

    shares = class_shares(classes, calibration)

    # 0 + 1 + ... + 59 = 1770 images; the ten rarest classes have 0 + 1 + ... + 9 = 45 of them.
    assert set(shares) == {OTHER, *classes[10:]}
    assert len(shares) == TOP_CLASSES + 1
    assert shares["c59"] == pytest.approx(59 / 1770)
    assert shares[OTHER] == pytest.approx(45 / 1770)
    assert sum(shares.values()) == pytest.approx(1.0)

    # A class of that very name shares the series with the rest.
    named = (*classes[:59], OTHER)
    assert class_shares(named, calibration)[OTHER] == pytest.approx((59 + 45) / 1770)


def test_a_rare_class_is_counted_as_other(metrics: Metrics, tiny_bundle: TinyBundle) -> None:
    classes, calibration = sixty_classes()
    manifest = tiny_bundle.bundle.manifest.model_copy(update={"classes": classes})
    bundle = dataclasses.replace(tiny_bundle.bundle, manifest=manifest)
    series = DecisionSeries(metrics, bundle, ActiveCalibration(id="c", calibration=calibration))
    prediction = Predictor.load(tiny_bundle.path, threads=1).predict([id_png(seed=1)])[0]

    for label in ("c9", "c9", "c10"):
        series.observe(dataclasses.replace(prediction, label=label), {}, u=0.5)

    counted = {
        name: value(
            metrics,
            "oodserve_predicted_class_total",
            **{"model": "tiny", "calibration": "c", "class": name},
        )
        for name in ("c9", "c10", OTHER)
    }
    assert counted == {"c9": None, "c10": 1, OTHER: 2}


def test_smoothing_follows_from_id_and_place_and_is_uniform() -> None:
    assert smoothing_u("a", 0) == smoothing_u("a", 0)
    assert smoothing_u("a", 0) != smoothing_u("a", 1)
    draws = np.array([smoothing_u(f"request-{i}", i % 3) for i in range(4000)])

    counts, _ = np.histogram(draws, bins=10, range=(0.0, 1.0))

    assert draws.min() >= 0
    assert draws.max() < 1
    # 400 expected in each; six standard deviations are 114.
    assert np.abs(counts - 400).max() < 114


def test_p_value_edges_are_those_that_drift_rules_are_made_for() -> None:
    tenths = [round(i / 10, 1) for i in range(1, 11)]

    assert list(P_VALUE_BUCKETS) == [0.01, 0.05, *tenths]
