"""In-process prediction: bytes in, class with score and in/out decision out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oodserve.bundle import Bundle, open_bundle
from oodserve.calibration import Calibration, ScoreCalibration
from oodserve.engines import Engine, Outputs
from oodserve.engines.onnxruntime import OnnxRuntimeEngine, Provider
from oodserve.errors import (
    BundleError,
    CalibrationError,
    CalibrationMismatch,
    InvalidRequest,
    NonFiniteScore,
    NotCalibrated,
)
from oodserve.images import ImageLimits, load, stack
from oodserve.scores import softmax
from oodserve.store import CalibrationStore

GOLDEN_TOLERANCE = 1e-5
"""Largest max|a-b| / max(1, max|a|) at which a runtime counts as reproducing golden outputs."""


@dataclass(frozen=True)
class ClassProbability:
    """One entry of the top-k list."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one image; ``ood == (score < threshold)`` holds exactly."""

    label: str
    index: int
    probability: float
    """Softmax of the predicted class."""
    top_k: tuple[ClassProbability, ...]
    ood: bool
    score_name: str
    score: float
    """Larger = more in-distribution."""
    threshold: float
    p_value: float
    """Conformal p-value of the score on the calibration images; small = unusual."""

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of the HTTP API; numbers are not rounded."""
        return {
            "label": self.label,
            "index": self.index,
            "probability": self.probability,
            "top_k": [{"label": c.label, "probability": c.probability} for c in self.top_k],
            "ood": self.ood,
            "score_name": self.score_name,
            "score": self.score,
            "threshold": self.threshold,
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class ActiveCalibration:
    """A calibration with its id: swapped as one reference, so no answer mixes two."""

    id: str
    calibration: Calibration

    def score(self, name: str | None) -> tuple[str, ScoreCalibration]:
        """Return the score to decide by: the named one, or the default.

        Raises
        ------
        InvalidRequest
            This calibration has no threshold for the named score.
        """
        name = name or self.calibration.default_score
        if name not in self.calibration.scores:
            raise InvalidRequest(
                f"`score_name` = {name[:40]!r} is not calibrated; "
                f"choose one of {sorted(self.calibration.scores)}"
            )
        return name, self.calibration.scores[name]


class Predictor:
    """One model version with its engine and its calibration.

    Parameters
    ----------
    bundle : Bundle
        The version; see `oodserve.bundle.open_bundle`.
    engine : Engine
        What runs it.
    active : ActiveCalibration, optional
        The thresholds to decide against; without one the predictor can infer but not decide.
    limits : ImageLimits
        Bounds on encoded images.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        active: ActiveCalibration | None = None,
        limits: ImageLimits = ImageLimits(),
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.active = active
        self.limits = limits

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        calibrations: Path | None = None,
        provider: Provider = "cpu",
        threads: int | None = None,
        limits: ImageLimits = ImageLimits(),
        accept_runtime_mismatch: bool = False,
        require_calibration: bool = True,
        read_calibration: bool = True,
    ) -> Predictor:
        """Open a bundle with the embedded engine and its calibration in force.

        Parameters
        ----------
        path : Path or str
            models/NAME (newest version) or models/NAME/VERSION.
        calibrations : Path, optional
            Store of refreshed calibrations; its current one counts before the bundle's own.
        provider, threads
            See `oodserve.engines.onnxruntime.OnnxRuntimeEngine`.
        limits : ImageLimits
            Bounds on encoded images.
        accept_runtime_mismatch : bool
            Use a calibration that was made on another runtime all the same.
        require_calibration : bool
            False opens a bundle that has no calibration yet, too.
        read_calibration : bool
            False looks for none at all: for making one, whatever is there.

        Raises
        ------
        BundleError, CalibrationError, EngineError
            See `oodserve.errors`; the message says what to do.
        """
        bundle = open_bundle(Path(path))
        model = bundle.manifest.model
        if model.file != "model.onnx":
            raise BundleError(
                f"`{bundle.path}` holds `{model.file}`, which the embedded engine cannot run; "
                "serve it with Triton",
                path=bundle.path,
            )
        engine = OnnxRuntimeEngine(
            bundle.read_model(), precision=model.precision, provider=provider, threads=threads
        )
        predictor = cls(bundle, engine, limits=limits)
        if not read_calibration:
            return predictor
        try:
            active = find_calibration(bundle, calibrations)
        except NotCalibrated:
            if require_calibration:
                raise
        else:
            check_calibration(
                bundle, engine, active, accept_runtime_mismatch=accept_runtime_mismatch
            )
            predictor.active = active
        return predictor

    def prepare(self, data: bytes) -> NDArray[np.uint8]:
        """Decode and preprocess one encoded image to (H, W, 3) uint8.

        Raises
        ------
        ImageError
            See `oodserve.images.decode`.
        """
        return load(data, self.bundle.manifest.input.preprocessing, limits=self.limits)

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the model on a batch of prepared images (N, H, W, 3) uint8."""
        return self.engine.infer(images)

    def decide(
        self,
        outputs: Outputs,
        row: int,
        *,
        active: ActiveCalibration | None = None,
        score_name: str | None = None,
        top_k: int = 1,
    ) -> Prediction:
        """Turn one row of the model's outputs into an answer.

        Parameters
        ----------
        outputs : Outputs
            Of `infer`.
        row : int
            Which image of the batch.
        active : ActiveCalibration, optional
            Decide against this calibration; by default the predictor's.
        score_name : str, optional
            Decide by this score; by default the calibration's default score.
        top_k : int
            How many classes to list, most probable first; 1 to the number of classes.

        Raises
        ------
        NotCalibrated
            There is no calibration to decide against.
        InvalidRequest
            Unknown score, or `top_k` out of range.
        NonFiniteScore
            The model returned NaN or an infinity for this image.
        """
        active = active or self.active
        if active is None:
            raise NotCalibrated(f"model `{self.bundle.name}` has no calibration to decide against")
        classes = self.bundle.manifest.classes
        if not 1 <= top_k <= len(classes):
            raise InvalidRequest(f"`top_k` = {top_k} is not between 1 and {len(classes)}")
        name, threshold = active.score(score_name)
        score = float(outputs[name][row])
        logits = outputs["logits"][row]
        if not np.isfinite(score) or not np.isfinite(logits).all():
            raise NonFiniteScore(
                f"the model returned a non-finite value for image {row} (`{name}` = {score}); "
                "no decision can be made"
            )
        probabilities = softmax(logits[np.newaxis])[0]
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        best = int(order[0])
        return Prediction(
            label=classes[best],
            index=best,
            probability=float(probabilities[best]),
            top_k=tuple(
                ClassProbability(label=classes[i], probability=float(probabilities[i]))
                for i in order
            ),
            ood=score < threshold.tau,
            score_name=name,
            score=score,
            threshold=threshold.tau,
            p_value=threshold.p_value(score),
        )

    def predict(
        self,
        images: Iterable[bytes | Path],
        *,
        top_k: int = 1,
        score_name: str | None = None,
    ) -> list[Prediction]:
        """Answer for encoded images, or files of them, as one batch.

        Raises
        ------
        ImageError, InvalidRequest, NotCalibrated, NonFiniteScore, EngineError
            For the first image at fault; nothing is skipped.
        """
        encoded = [image.read_bytes() if isinstance(image, Path) else image for image in images]
        if not encoded:
            return []
        outputs = self.infer(stack(self.prepare(data) for data in encoded))
        return [
            self.decide(outputs, row, top_k=top_k, score_name=score_name)
            for row in range(len(encoded))
        ]

    def verify_golden(self) -> float:
        """Run the golden inputs and return the largest relative error, as a warm-up does.

        Raises
        ------
        BundleError
            The runtime does not reproduce the golden outputs within `GOLDEN_TOLERANCE`.
        """
        golden = self.bundle.read_golden()
        outputs = self.infer(golden.images)
        errors = {
            name: relative_error(expected, outputs[name])
            for name, expected in golden.outputs.items()
        }
        worst = max(errors, key=lambda name: errors[name])
        if not errors[worst] <= GOLDEN_TOLERANCE:
            raise BundleError(
                f"this runtime does not reproduce the golden outputs of `{self.bundle.path}`: "
                f"`{worst}` differs by {errors[worst]:.3g} (at most {GOLDEN_TOLERANCE:g}); "
                "export the bundle again for this runtime",
                path=self.bundle.path,
            )
        return errors[worst]

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()


def find_calibration(bundle: Bundle, calibrations: Path | None) -> ActiveCalibration:
    """Return the calibration in force: the store's current one, else the bundle's own.

    Raises
    ------
    NotCalibrated
        There is neither.
    CalibrationError
        The one in force cannot be read.
    """
    if calibrations is not None:
        if not calibrations.is_dir():
            raise CalibrationError(
                f"the calibration store `{calibrations}` is not a folder; make it, or leave "
                "`--calibrations` out to use the bundle's own calibration",
                path=calibrations,
            )
        published = CalibrationStore(calibrations).current(bundle.name, bundle.version)
        if published is not None:
            return ActiveCalibration(id=published.id, calibration=published.calibration)
    calibration, identity = bundle.read_calibration()
    return ActiveCalibration(id=identity, calibration=calibration)


def check_calibration(
    bundle: Bundle,
    engine: Engine,
    active: ActiveCalibration,
    *,
    accept_runtime_mismatch: bool = False,
) -> None:
    """Refuse a calibration that was not made for this model, input and runtime.

    Raises
    ------
    CalibrationMismatch
        The message says which of the three differs.
    """
    made, manifest = active.calibration, bundle.manifest
    if made.model_sha256 != manifest.model.sha256:
        raise CalibrationMismatch(
            f"calibration {active.id} was made for another model (sha256 "
            f"{made.model_sha256[:12]}..., this one is {manifest.model.sha256[:12]}...); "
            f"calibrate this one with `oodserve calibrate {bundle.path} --images FOLDER`"
        )
    if made.input_sha256 != manifest.input_sha256:
        raise CalibrationMismatch(
            f"calibration {active.id} was made with another preprocessing; calibrate again"
        )
    if made.runtime != engine.runtime and not accept_runtime_mismatch:
        raise CalibrationMismatch(
            f"calibration {active.id} was made on {_describe(made)}, this runtime is "
            f"{engine.runtime.library}/{engine.runtime.provider}/{engine.runtime.precision}; "
            "calibrate on this one, or accept the mismatch with `--accept-runtime-mismatch`"
        )
    unknown = sorted(set(made.scores) - set(manifest.scores))
    if unknown:
        raise CalibrationMismatch(
            f"calibration {active.id} has thresholds for {unknown}, which this model does not "
            f"compute (it computes {list(manifest.scores)})"
        )


def relative_error(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Return max|a-b| / max(1, max|a|) in float64; infinite where shapes or NaN differ."""
    if expected.shape != got.shape:
        return float("inf")
    reference, other = expected.astype(np.float64), got.astype(np.float64)
    error = float(np.max(np.abs(reference - other)) / max(1.0, float(np.max(np.abs(reference)))))
    return error if np.isfinite(error) else float("inf")


def _describe(calibration: Calibration) -> str:
    runtime = calibration.runtime
    return f"{runtime.library}/{runtime.provider}/{runtime.precision}"
