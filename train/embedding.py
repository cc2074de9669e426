"""Running a model in eval mode over labelled images, with the preprocessing of serving."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from oodserve.bundle import InputSpec
from train.data.loading import evaluation_batches
from train.data.sources import ImageSource, LabelledImages
from train.methods.method import Embedded
from train.networks.classifier import Classifier

EVALUATION_BATCH = 64
"""Images per forward pass outside of training."""


def eval_batches(
    model: Classifier, images: LabelledImages | ImageSource, spec: InputSpec
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised images on the model's device, and labels, with the model in eval mode.

    Afterwards, also if the caller stops early, the model is back in the mode it was in.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        for batch in evaluation_batches(images, input=spec, batch_size=EVALUATION_BATCH):
            yield batch.images.to(device), batch.labels
    finally:
        model.train(training)


@torch.no_grad()
def embed(model: Classifier, images: LabelledImages, spec: InputSpec) -> Embedded:
    """Return features and logits of all images, in their order."""
    features, logits, labels = [], [], []
    for pixels, truth in eval_batches(model, images, spec):
        inner, outer = model.outputs(pixels)
        features.append(inner.float().cpu())
        logits.append(outer.float().cpu())
        labels.append(truth)
    return Embedded(torch.cat(features), torch.cat(logits), torch.cat(labels))
