"""`evaluation.json`, format version 2: every figure of a run, with its counts and intervals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from oodserve.errors import DataError
from oodserve.metrics import OodMetrics, Rate
from oodserve.schema import Document, Sha256, explain

EVALUATION = "evaluation.json"

FORMAT_VERSION = 2

Interval = tuple[float, float]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Images = Annotated[int, Field(ge=1)]

DETECTION_FIGURES = ("auroc", "aupr_ood", "aupr_id", "fpr@95tpr_ood", "ood_miss@95id")
"""Figures of one score on one out-of-distribution set that need no threshold."""

_NUMBERS = re.compile(r"\[\n\s*([-+0-9.eE,\s]+?)\s*\]")


class CountedRate(Document):
    """A share with the counts it comes from."""

    count: Count
    total: Count
    value: Share | None
    """`count` / `total`; null where nothing was counted."""
    exact: Interval | None
    """Clopper-Pearson interval."""
    bootstrap: Interval | None
    """Percentile bootstrap interval."""

    @classmethod
    def of(cls, rate: Rate, bootstrap: Interval | None, *, confidence: float) -> CountedRate:
        """Return the rate with both of its intervals."""
        return cls(
            count=rate.count,
            total=rate.total,
            value=rate.value,
            exact=rate.interval(confidence),
            bootstrap=bootstrap,
        )

    @model_validator(mode="after")
    def _value_follows_from_the_counts(self) -> CountedRate:
        expected = self.count / self.total if self.total else None
        if self.count > self.total or self.value != expected:
            raise ValueError(f"`value` = {self.value} is not {self.count} of {self.total}")
        return self


class AveragePrecisions(Document):
    """Average precision at one base rate."""

    aupr_ood: Share
    aupr_id: Share


class OodAtTau(Document):
    """What tau does with one out-of-distribution set."""

    ood_recall: CountedRate
    """Outliers flagged."""
    risk_with_ood: CountedRate
    """Wrong answers among all images answered, every answered outlier counting as wrong."""


class Detection(Document):
    """One score on one out-of-distribution set."""

    model_config = ConfigDict(populate_by_name=True)

    ood_set: str
    score: str
    images: Images
    """Out-of-distribution images."""
    auroc: Share
    aupr_ood: Share
    aupr_id: Share
    fpr95_ood: Annotated[Share, Field(alias="fpr@95tpr_ood")]
    miss95_id: Annotated[Share, Field(alias="ood_miss@95id")]
    base_rates: dict[str, AveragePrecisions]
    """ID:OOD proportion, such as ``5:1``, to average precision there."""
    at_tau: OodAtTau | None
    intervals: dict[str, Interval]
    """Bootstrap interval of each figure; ``aupr_ood@5:1`` at a base rate."""

    @classmethod
    def of(cls, metrics: OodMetrics, **facts: Any) -> Detection:
        """Return the metrics with what else is known."""
        return cls.model_validate(metrics.report() | facts)

    def figures(self) -> dict[str, float]:
        """Return every figure under the name that reports use."""
        found = {
            "auroc": self.auroc,
            "aupr_ood": self.aupr_ood,
            "aupr_id": self.aupr_id,
            "fpr@95tpr_ood": self.fpr95_ood,
            "ood_miss@95id": self.miss95_id,
        }
        for rate, pair in self.base_rates.items():
            found |= {f"aupr_ood@{rate}": pair.aupr_ood, f"aupr_id@{rate}": pair.aupr_id}
        if self.at_tau is not None and self.at_tau.ood_recall.value is not None:
            found["ood_recall"] = self.at_tau.ood_recall.value
        return found


class GroupDetection(Document):
    """One score on a group of sets: the plain mean over the sets, whatever their sizes."""

    group: str
    score: str
    ood_sets: Annotated[tuple[str, ...], Field(min_length=1)]
    figures: dict[str, Share]
    intervals: dict[str, Interval]


class AtTau(Document):
    """The threshold from the calibration images, and what it does with the test images."""

    tau: float
    rule: Literal["pac", "marginal"]
    target_tpr: Share
    confidence: Share | None
    """Of the rule ``pac``; null under ``marginal``."""
    n: Images
    """Calibration images."""
    k: Images
    """Rank of tau among their scores, 1 = smallest."""
    tpr_lower: Share
    """Lower bound on the share of in-distribution images accepted."""
    false_alarms: CountedRate
    """In-distribution test images flagged."""
    coverage: CountedRate
    """In-distribution test images answered."""
    selective_risk: CountedRate
    """Wrong answers among those."""


class ScoreFigures(Document):
    """One score on the in-distribution test images alone."""

    score: str
    aurc: Share
    """Area under the risk-coverage curve."""
    aurc_interval: Interval
    curve: Annotated[tuple[tuple[Share, Share], ...], Field(min_length=1)]
    """(coverage, selective risk), coverage ascending; at most 201 points of it."""
    at_tau: AtTau | None
    """Null where no threshold could be made; `notes` says why."""


class RunFacts(Document):
    """Which model the figures are of."""

    name: str
    method: str
    seed: Count
    classes: tuple[str, ...]
    held_out: tuple[str, ...]
    data_fingerprint: Sha256


class Evaluation(Document):
    """Every figure of a run."""

    format_version: Literal[2] = 2
    run: RunFacts
    confidence: Share
    """Of every interval, two-sided."""
    resamples: Images
    accuracy: Share
    accuracy_interval: Interval
    """Clopper-Pearson."""
    test_images: Images
    scores: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names; the first is the recipe's default one, unless others were asked for."""
    selective: Annotated[tuple[ScoreFigures, ...], Field(min_length=1)]
    """What each score does on the test images alone."""
    detections: Annotated[tuple[Detection, ...], Field(min_length=1)]
    """Sets in their order, each under every score."""
    groups: tuple[GroupDetection, ...]
    notes: tuple[str, ...]
    """What could not be computed, and why."""

    @model_validator(mode="after")
    def _every_score_on_every_set(self) -> Evaluation:
        found = [(item.ood_set, item.score) for item in self.detections]
        wanted = [(name, score) for name in self.ood_sets for score in self.scores]
        if found != wanted or tuple(item.score for item in self.selective) != self.scores:
            raise ValueError(
                f"`detections` and `selective` are not of the scores {self.scores}, each once"
            )
        return self

    def to_json(self) -> str:
        """Return the document as indented JSON with the names that reports use."""
        document = self.model_dump(mode="json", by_alias=True)
        text = json.dumps(document, indent=1, ensure_ascii=False)
        return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    @property
    def ood_sets(self) -> tuple[str, ...]:
        """Names of the out-of-distribution sets, in their order."""
        return tuple(dict.fromkeys(item.ood_set for item in self.detections))

    def detection(self, ood_set: str, score: str) -> Detection:
        """Return the figures of one score on one set.

        Raises
        ------
        DataError
            There is no such set or score.
        """
        for item in self.detections:
            if (item.ood_set, item.score) == (ood_set, score):
                return item
        raise DataError(
            f"there is no evaluation of the score `{score}` on the set `{ood_set}`; the sets are "
            f"{', '.join(self.ood_sets)}, the scores {', '.join(self.scores)}"
        )


def read_evaluation(folder: Path) -> Evaluation | None:
    """Return the evaluation in a folder, such as that of a run, or None if there is none.

    Raises
    ------
    DataError
        It cannot be read, is damaged, or has another format version.
    """
    file = folder / EVALUATION
    if not file.exists():
        return None
    again = f"write it anew with `python -m train evaluate {folder}`"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read `{file}` ({error}); {again}") from error
    except ValueError as error:
        raise DataError(f"`{file}` is damaged, not JSON ({error}); {again}") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"`{file}` has the format version `{version}`; this program reads version "
            f"{FORMAT_VERSION}: {again}"
        )
    try:
        # As JSON: lists stand for tuples there.
        return Evaluation.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise DataError(f"`{file}` is damaged: {explain(error)}; {again}") from error
