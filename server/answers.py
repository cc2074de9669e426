"""The JSON that the API answers with: models for the reference, and builders for speed.

The builders return plain dictionaries; tests hold them against the models, so that serving does not
pay for validating its own answers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from oodserve.calibration import ScoreCalibration
from oodserve.errors import OodserveError
from oodserve.predictor import Prediction
from server.models import InForce, ServedModel, ServedVersion
from server.prediction import Result
from server.statuses import status_of


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorAnswer(_Answer):
    """Every error, whatever its status."""

    error: str = Field(description="What was wrong, what was expected, what to do.")


class ClassProbabilityAnswer(_Answer):
    """One entry of the top-k list."""

    label: str
    probability: float = Field(ge=0, le=1)


class PredictionAnswer(_Answer):
    """The answer for one image."""

    label: str = Field(description="Predicted class.")
    index: int = Field(description="Its place among the model's classes.")
    probability: float = Field(ge=0, le=1, description="Its softmax probability.")
    top_k: list[ClassProbabilityAnswer] = Field(description="Most probable classes first.")
    ood: bool = Field(description="Out of distribution: `score < threshold`.")
    score_name: str = Field(description="Score that decided.")
    score: float = Field(description="Larger = more in-distribution.")
    threshold: float = Field(description="Calibrated threshold tau.")
    p_value: float = Field(
        gt=0, le=1, description="Conformal p-value: share of calibration images as unusual as this."
    )


class ItemErrorAnswer(_Answer):
    """An image of several that could not be answered, in its place."""

    error: str
    status: int = Field(description="What the status would be for this image alone.")


class PredictAnswer(_Answer):
    """The answer to a predict request; as many predictions as images, in their order."""

    model: str
    version: str
    calibration: str = Field(description="Id of the calibration that decided.")
    request_id: str
    predictions: list[PredictionAnswer | ItemErrorAnswer]


class VersionAnswer(_Answer):
    """One version of a model."""

    version: str
    state: Literal["loading", "ready", "failed"]
    reason: str | None = Field(description="Why it is not ready.")
    sha256: str | None = Field(description="Digest of the model file.")
    precision: str | None
    created: str | None = Field(description="When it was exported.")
    calibration: str | None = Field(description="Id of its calibration.")


class InputAnswer(_Answer):
    """What the model takes, after decoding and resizing."""

    height: int
    width: int


class ThresholdAnswer(_Answer):
    """How one score is decided on."""

    rule: str
    target_tpr: float
    confidence: float | None
    n: int = Field(description="Calibration images.")
    k: int = Field(description="Rank of tau among their scores.")
    tau: float
    tpr_lower: float
    rejection_upper: float


class CalibrationAnswer(_Answer):
    """The calibration in force."""

    id: str
    created: str
    default_score: str
    scores: dict[str, ThresholdAnswer]


class ModelAnswer(_Answer):
    """A model; what its bundle says is null while that has not been read."""

    name: str
    state: Literal["loading", "ready", "failed"] = Field(description="Of the active version.")
    reason: str | None = Field(description="Why it is not ready.")
    active: str | None = Field(description="Version that answers unless a request names one.")
    versions: list[VersionAnswer] = Field(description="Newest first.")
    classes: list[str] | None
    scores: list[str] | None = Field(description="Scores that the model computes.")
    default_score: str | None = Field(description="Score that decides by default.")
    input: InputAnswer | None
    calibration: CalibrationAnswer | None


class ModelsAnswer(_Answer):
    """All models of this server."""

    models: list[ModelAnswer]
    default_model: str | None = Field(description="What /v1/predict means, if it means one.")


class LiveAnswer(_Answer):
    """Liveness."""

    live: Literal[True]


class ReadyAnswer(_Answer):
    """Readiness: every model is loaded, warmed up and calibrated."""

    ready: Literal[True]


class NotReadyAnswer(_Answer):
    """Why the server is not ready."""

    ready: Literal[False]
    reasons: dict[str, str] = Field(description="By model; `server` and `repository` besides.")


def describe_results(
    served: ServedVersion, in_force: InForce, request_id: str, results: list[Result]
) -> dict[str, object]:
    """Return a `PredictAnswer`."""
    return {
        "model": served.model,
        "version": str(served.number),
        "calibration": in_force.active.id,
        "request_id": request_id,
        "predictions": [
            result.to_dict()
            if isinstance(result, Prediction)
            else {"error": str(result), "status": status_of(result)}
            for result in results
        ],
    }


def describe_failures(errors: list[OodserveError]) -> tuple[int, str]:
    """Return status and text where no image could be answered.

    One image gives its own; of several, the highest status, and the text names each image.
    """
    if len(errors) == 1:
        return status_of(errors[0]), str(errors[0])
    texts = "; ".join(f"image {place}: {error}" for place, error in enumerate(errors))
    return max(map(status_of, errors)), f"none of {len(errors)} images could be answered: {texts}"


def describe_model(model: ServedModel) -> dict[str, object]:
    """Return a `ModelAnswer`."""
    active = model.active
    manifest = active.bundle.manifest if active and active.bundle else None
    size = manifest.input.preprocessing if manifest else None
    in_force = active.ready.in_force if active and active.ready else None
    return {
        "name": model.name,
        "state": model.state,
        "reason": model.reason,
        "active": str(active.number) if active else None,
        "versions": [
            _describe_version(model.versions[number])
            for number in sorted(model.versions, reverse=True)
        ],
        "classes": list(manifest.classes) if manifest else None,
        "scores": list(manifest.scores) if manifest else None,
        "default_score": _default_score(active, in_force),
        "input": {"height": size.height, "width": size.width} if size else None,
        "calibration": _describe_calibration(in_force) if in_force else None,
    }


def _default_score(active: ServedVersion | None, in_force: InForce | None) -> str | None:
    """Return what decides by default: the calibration's word counts before the bundle's."""
    if in_force is not None:
        return in_force.active.calibration.default_score
    return active.bundle.manifest.default_score if active and active.bundle else None


def _describe_version(version: ServedVersion) -> dict[str, object]:
    manifest = version.bundle.manifest if version.bundle else None
    return {
        "version": str(version.number),
        "state": version.state,
        "reason": version.reason,
        "sha256": manifest.model.sha256 if manifest else None,
        "precision": manifest.model.precision if manifest else None,
        "created": manifest.created if manifest else None,
        "calibration": version.ready.in_force.active.id if version.ready else None,
    }


def _describe_calibration(in_force: InForce) -> dict[str, object]:
    calibration = in_force.active.calibration
    return {
        "id": in_force.active.id,
        "created": calibration.created,
        "default_score": calibration.default_score,
        "scores": {name: _describe_threshold(score) for name, score in calibration.scores.items()},
    }


def _describe_threshold(score: ScoreCalibration) -> dict[str, object]:
    return {name: getattr(score, name) for name in ThresholdAnswer.model_fields}
