"""What Prometheus scrapes. Names, labels and buckets are described in docs/reference/server.md.

Everything that is to be summed over replicas is a counter or a histogram; gauges are constants of
a model or the state of this process. All label values known at start get their series then, so
that each begins at 0 and its first increase is seen.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterable, Mapping
from datetime import datetime

import onnxruntime
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from oodserve import __version__
from oodserve.bundle import Bundle
from oodserve.calibration import Calibration
from oodserve.errors import ConfigurationError
from oodserve.predictor import ActiveCalibration, Prediction
from server.statuses import REASONS, Reason

MAX_MODELS = 8
"""Models of one server: each is a set of series."""

TOP_CLASSES = 50
"""Classes with a series of their own, by frequency in the calibration; the rest is `OTHER`."""

OTHER = "other"
UNMATCHED = "unmatched"
"""Endpoint label of a request whose path is no route."""

STAGES = ("decode", "preprocess", "queue", "infer", "score")
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STAGE_BUCKETS_S = (0.0005, *REQUEST_BUCKETS_S)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
P_VALUE_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

_MODEL = ("model",)
_CALIBRATION = ("model", "calibration")
_SCORE = ("model", "calibration", "score")
_CLASS = ("model", "calibration", "class")


class Metrics:
    """The server's metrics in one registry.

    Parameters
    ----------
    registry : CollectorRegistry
        A fresh one for each application, so nothing is shared between two.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self._add_requests(registry)
        self._add_decisions(registry)
        self._add_calibrations(registry)
        self._add_identity(registry)
        for stage in STAGES:
            self._stage_duration.labels(stage)
        for reason in REASONS:
            self._rejected.labels(reason)

    def _add_requests(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "oodserve_requests_total",
            "Requests answered, by route template and status code.",
            ("endpoint", "code"),
            registry=registry,
        )
        self._request_duration = Histogram(
            "oodserve_request_duration_seconds",
            "Time from a request's head to the end of its answer, sending the body included.",
            ("endpoint",),
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._stage_duration = Histogram(
            "oodserve_stage_duration_seconds",
            "Time spent in one stage: decode and preprocess for each image, the others for each "
            "request.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.batch_size = Histogram(
            "oodserve_batch_size",
            "Images in one inference.",
            _MODEL,
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "oodserve_queue_depth", "Images that wait for their inference.", registry=registry
        )
        self.inflight_requests = Gauge(
            "oodserve_inflight_requests", "Requests that are being worked on.", registry=registry
        )
        self._rejected = Counter(
            "oodserve_rejected_requests_total",
            "Requests, or images of a request, that were turned away.",
            ("reason",),
            registry=registry,
        )

    def _add_decisions(self, registry: CollectorRegistry) -> None:
        self.predictions = Counter(
            "oodserve_predictions_total",
            "Images that were decided on.",
            _CALIBRATION,
            registry=registry,
        )
        self.ood_flags = Counter(
            "oodserve_ood_flags_total",
            "Images whose score is below its threshold, for each calibrated score.",
            _SCORE,
            registry=registry,
        )
        self.ood_p_value = Histogram(
            "oodserve_ood_p_value",
            "Smoothed conformal p-values: uniform on [0, 1] unless traffic has drifted.",
            _SCORE,
            buckets=P_VALUE_BUCKETS,
            registry=registry,
        )
        self.predicted_class = Counter(
            "oodserve_predicted_class_total",
            f"Images by predicted class: the {TOP_CLASSES} most frequent ones in the calibration, "
            f"and `{OTHER}`.",
            _CLASS,
            registry=registry,
        )
        self.nonfinite_scores = Counter(
            "oodserve_nonfinite_scores_total",
            "Images for which the model returned NaN or an infinity.",
            _MODEL,
            registry=registry,
        )

    def _add_calibrations(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...]) -> Gauge:
            return Gauge(f"oodserve_{name}", text, labels, registry=registry)

        self._threshold = gauge("ood_threshold", "Threshold tau in force: out is below it.", _SCORE)
        self._class_reference = gauge(
            "predicted_class_reference_ratio",
            "Share of the calibration images predicted as the class.",
            _CLASS,
        )
        self._samples = gauge("calibration_samples", "Calibration images.", _SCORE)
        self._calibrated = gauge(
            "calibration_timestamp_seconds", "When the calibration was made.", _CALIBRATION
        )
        self._target_rejection = gauge(
            "calibration_target_rejection_ratio",
            "Share of in-distribution images that may be flagged: alpha.",
            _SCORE,
        )
        self._rejection_upper = gauge(
            "calibration_rejection_upper_ratio",
            "Upper confidence bound on the share of in-distribution images that are flagged.",
            _SCORE,
        )

    def _add_identity(self, registry: CollectorRegistry) -> None:
        self._model_info = Gauge(
            "oodserve_model_info",
            "1; its labels say what the active version of a model is.",
            ("model", "version", "calibration", "sha"),
            registry=registry,
        )
        self.model_loaded = Gauge(
            "oodserve_model_loaded",
            "1 when the active version is ready, else 0.",
            _MODEL,
            registry=registry,
        )
        self._model_load_timestamp = Gauge(
            "oodserve_model_load_timestamp_seconds",
            "When the active version became ready.",
            _MODEL,
            registry=registry,
        )
        Gauge(
            "oodserve_build_info",
            "1; its labels say what this server runs on.",
            ("version", "python", "framework"),
            registry=registry,
        ).labels(
            __version__, platform.python_version(), f"onnxruntime {onnxruntime.__version__}"
        ).set(1)

    def expect_endpoints(self, codes: Mapping[str, Iterable[int]]) -> None:
        """Begin the series of each route template with the status codes it can answer with."""
        for endpoint, expected in codes.items():
            self._request_duration.labels(endpoint)
            for code in sorted(expected):
                self._requests.labels(endpoint, str(code))

    def expect_models(self, names: Iterable[str]) -> None:
        """Begin the series of the models that are to be served.

        Raises
        ------
        ConfigurationError
            There are more than `MAX_MODELS`.
        """
        names = list(names)
        if len(names) > MAX_MODELS:
            raise ConfigurationError(
                f"{len(names)} models are too many for one server, whose metrics hold {MAX_MODELS} "
                f"({', '.join(names)}); serve several repositories"
            )
        for name in names:
            self.model_loaded.labels(name).set(0)
            self.nonfinite_scores.labels(name)
            self.batch_size.labels(name)

    def observe_request(self, endpoint: str, code: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(endpoint, str(code)).inc()
        self._request_duration.labels(endpoint).observe(seconds)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Record how long one of `STAGES` took."""
        self._stage_duration.labels(stage).observe(seconds)

    def reject(self, reason: Reason) -> None:
        """Count a request or an image that was turned away."""
        self._rejected.labels(reason).inc()

    def show_active(self, bundle: Bundle, active: ActiveCalibration) -> None:
        """Set the gauges of a model's active version and its calibration."""
        model, identity, calibration = bundle.name, active.id, active.calibration
        for name, score in calibration.scores.items():
            labels = (model, identity, name)
            self._threshold.labels(*labels).set(score.tau)
            self._samples.labels(*labels).set(score.n)
            self._target_rejection.labels(*labels).set(1.0 - score.target_tpr)
            self._rejection_upper.labels(*labels).set(score.rejection_upper)
        created = datetime.fromisoformat(calibration.created).timestamp()
        self._calibrated.labels(model, identity).set(created)
        for label, share in class_shares(bundle.manifest.classes, calibration).items():
            self._class_reference.labels(model, identity, label).set(share)
        sha = bundle.manifest.model.sha256[:12]
        self._model_info.labels(model, str(bundle.version), identity, sha).set(1)
        self._model_load_timestamp.labels(model).set(time.time())
        self.model_loaded.labels(model).set(1)


class DecisionSeries:
    """The series that decisions of one model under one calibration are counted in.

    Parameters
    ----------
    metrics : Metrics
        Where they live.
    bundle : Bundle
        Names the model and its classes.
    active : ActiveCalibration
        Names the calibration; its scores are the ones that are counted.
    """

    def __init__(self, metrics: Metrics, bundle: Bundle, active: ActiveCalibration) -> None:
        model, identity = bundle.name, active.id
        shares = class_shares(bundle.manifest.classes, active.calibration)
        self._scores = active.calibration.scores
        self._predictions = metrics.predictions.labels(model, identity)
        self._flags = {
            name: metrics.ood_flags.labels(model, identity, name) for name in self._scores
        }
        self._p_values = {
            name: metrics.ood_p_value.labels(model, identity, name) for name in self._scores
        }
        self._classes = {
            label: metrics.predicted_class.labels(model, identity, label) for label in shares
        }

    def observe(self, prediction: Prediction, scores: Mapping[str, float], *, u: float) -> None:
        """Count one decision under every calibrated score, whichever decided.

        Parameters
        ----------
        prediction : Prediction
            The answer.
        scores : mapping of str to float
            The finite ones among the image's scores.
        u : float
            In [0, 1), independent of the scores: smooths p-values of equal scores.
        """
        self._predictions.inc()
        self._classes[prediction.label if prediction.label in self._classes else OTHER].inc()
        for name, calibrated in self._scores.items():
            if name in scores:
                self._flags[name].inc(calibrated.is_out(scores[name]))
                self._p_values[name].observe(calibrated.smoothed_p_value(scores[name], u))


def class_shares(classes: tuple[str, ...], calibration: Calibration) -> dict[str, float]:
    """Return class label to its share of the calibration images, as the metrics have it.

    The `TOP_CLASSES` most frequent classes by their names, and `OTHER` for the rest if there is
    one; in all, the shares sum to 1.
    """
    shares = {name: calibration.class_reference.get(str(i), 0.0) for i, name in enumerate(classes)}
    ranked = sorted(classes, key=lambda name: -shares[name])
    kept = {name: shares[name] for name in ranked[:TOP_CLASSES]}
    rest = ranked[TOP_CLASSES:]
    if rest:
        kept[OTHER] = kept.get(OTHER, 0.0) + sum(shares[name] for name in rest)
    return kept


def smoothing_u(request_id: str, position: int) -> float:
    """Return a number in [0, 1) that follows from a request's id and an image's place in it."""
    digest = hashlib.sha256(f"{request_id}:{position}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
