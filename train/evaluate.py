"""What a finished run is worth: accuracy and out-of-distribution detection, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from oodserve.metrics import OodMetrics, accuracy, auroc, bootstrap_interval, evaluate_ood
from train.checkpoint import replace_text
from train.data.folders import open_splits
from train.data.sources import ImageSource, LabelledImages
from train.embedding import eval_batches
from train.networks.classifier import Classifier
from train.run import TrainedRun
from train.scorers.apply import Scoring
from train.scorers.scorer import Scorer

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class ScoredSource:
    """A model's logits and scores on a list of images, in their order."""

    logits: NDArray[np.float32]
    """(N, K)."""
    scores: dict[str, NDArray[np.float32]]
    """Score name to (N,); larger = more in-distribution."""


@dataclass(frozen=True)
class Detection:
    """How well one score tells one out-of-distribution set from the test images."""

    ood_set: str
    score: str
    images: int
    metrics: OodMetrics
    auroc_interval: tuple[float, float]
    """Bootstrap interval at 95 %, over images of both sides."""


@dataclass(frozen=True)
class Evaluation:
    """All figures of a run on its test split."""

    accuracy: float
    test_images: int
    detections: tuple[Detection, ...]
    test_scores: dict[str, NDArray[np.float32]]
    ood_scores: dict[str, dict[str, NDArray[np.float32]]]
    """Set name to score name to (N,)."""

    def to_dict(self) -> dict[str, object]:
        """Return the figures, without the raw scores, as `evaluation.json` holds them."""
        return {
            "format_version": 1,
            "accuracy": self.accuracy,
            "test_images": self.test_images,
            "detections": [
                {
                    "ood_set": item.ood_set,
                    "score": item.score,
                    "images": item.images,
                    "auroc_interval": list(item.auroc_interval),
                    **item.metrics.report(),
                }
                for item in self.detections
            ],
        }


def evaluate(run: TrainedRun, *, resamples: int = 1000) -> Evaluation:
    """Score the test split and every out-of-distribution set of a run's data.

    Raises
    ------
    DataError
        The data have no out-of-distribution set to compare with.
    """
    recipe = run.recipe
    splits = open_splits(recipe.data, recipe.input)
    if not splits.ood:
        raise DataError(
            f"`{recipe.data.root}` has no out-of-distribution images: neither a folder `ood/NAME` "
            "nor `data.held_out` classes"
        )
    scorers = run.scorers(recipe.scores)
    inside = score_source(run.model, splits.test.source, run.input, scorers=scorers)
    outside = {
        name: score_source(run.model, source, run.input, scorers=scorers)
        for name, source in splits.ood.items()
    }
    rng = np.random.default_rng(recipe.seed)
    detections = [
        Detection(
            ood_set=ood_set,
            score=score,
            images=len(scored.logits),
            metrics=evaluate_ood(inside.scores[score], scored.scores[score]),
            auroc_interval=bootstrap_interval(
                auroc, inside.scores[score], scored.scores[score], resamples=resamples, rng=rng
            ),
        )
        for ood_set, scored in outside.items()
        for score in recipe.scores
    ]
    return Evaluation(
        accuracy=accuracy(inside.logits.argmax(axis=1), splits.test.labels),
        test_images=len(splits.test.labels),
        detections=tuple(detections),
        test_scores=inside.scores,
        ood_scores={name: scored.scores for name, scored in outside.items()},
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.json` into a run folder."""
    replace_text(folder / EVALUATION, json.dumps(evaluation.to_dict(), indent=1) + "\n")


@torch.no_grad()
def score_source(
    model: Classifier, source: ImageSource, spec: InputSpec, *, scorers: Mapping[str, Scorer]
) -> ScoredSource:
    """Run the model in eval mode over images with the preprocessing of serving.

    Parameters
    ----------
    model : Classifier
    source : ImageSource
        At least one image.
    spec : InputSpec
    scorers : mapping of str to Scorer
        What to compute; see `TrainedRun.scorers`.
    """
    scoring = Scoring(model, scorers).to(next(model.parameters()).device)
    logits: list[Tensor] = []
    scores: dict[str, list[Tensor]] = {name: [] for name in scorers}
    for pixels, _ in eval_batches(model, source, spec):
        _, part, values = scoring(pixels)
        logits.append(part.float().cpu())
        for name, value in values.items():
            scores[name].append(value.cpu())
    return ScoredSource(
        logits=torch.cat(logits).numpy(),
        scores={name: torch.cat(parts).numpy() for name, parts in scores.items()},
    )


def accuracy_on(model: Classifier, images: LabelledImages, spec: InputSpec) -> float:
    """Return the share of images whose largest logit is the label's."""
    scored = score_source(model, images.source, spec, scorers={})
    return accuracy(scored.logits.argmax(axis=1), images.labels)


def as_table(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return rows of text, header first: each set under each score; all figures are in the JSON."""
    shown = ("fpr@95tpr_ood", "ood_miss@95id")
    rows = [
        (
            f"{item.ood_set} ({item.images})",
            item.score,
            f"{item.metrics.auroc:.4f}",
            f"{item.auroc_interval[0]:.3f} to {item.auroc_interval[1]:.3f}",
            *(f"{item.metrics.report()[name]:.4f}" for name in shown),
        )
        for item in evaluation.detections
    ]
    return [("OOD set (images)", "score", "AUROC", "95 % interval", *shown), *rows]
