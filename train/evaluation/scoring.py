"""Running a model over images: logits and scores, with the preprocessing of serving."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from oodserve.bundle import InputSpec
from oodserve.metrics import accuracy
from train.data.sources import ImageSource, LabelledImages
from train.embedding import eval_batches
from train.evaluation.scored import ScoredSource
from train.networks.classifier import Classifier
from train.scorers.apply import Scoring
from train.scorers.scorer import Scorer


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
