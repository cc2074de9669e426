"""Outliers for batches that come without any."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from train.draw import Draw
from train.methods.method import TrainingBatch
from train.methods.synthesis.settings import SynthesisSettings, synthesise


def with_outliers(
    model: nn.Module, batch: TrainingBatch, *, settings: SynthesisSettings, draw: Draw
) -> tuple[TrainingBatch, dict[str, Tensor]]:
    """Return a batch with as many outliers as images, made from them, and `perturbation`'s terms.

    Outlier i is made from image i, or with ``partner = "permuted"`` from image p(i), p being a
    permutation of the global batch.

    Parameters
    ----------
    model : nn.Module
        (N, 3, H, W) to (N, K); left as it is.
    batch : TrainingBatch
        Its outliers are not looked at.
    settings : SynthesisSettings
    draw : Draw
        The step's randomness and epoch.

    Raises
    ------
    RecipeError
        `settings.p_inv` of these images is too little.
    """
    images, labels = batch.images, batch.labels
    if settings.partner == "permuted":
        # Images change places, not outliers: a part of a step's batch can gather the former only.
        order = draw.permutation(len(images))
        images, labels = draw.partners(images, order), draw.partners(labels, order)
    outliers = synthesise(model, images, labels, settings=settings, draw=draw)
    return replace(batch, outliers=outliers), perturbation(images, outliers, settings=settings)


def perturbation(
    images: Tensor, outliers: Tensor, *, settings: SynthesisSettings
) -> dict[str, Tensor]:
    """Return ``perturbation_mean`` and ``perturbation_max``, of the change from image to outlier.

    They are of the absolute difference in units of a normalised intensity; one 8-bit level is about
    0.017. Far below that there is no outlier. Noise is not a change of an image: for ``gaussian``
    there are no terms.

    Parameters
    ----------
    images, outliers : (B, C, H, W) float
        Each outlier with the image that it was made from.
    settings : SynthesisSettings
    """
    if settings.kind == "gaussian":
        return {}
    change = (outliers - images).detach().abs()
    return {"perturbation_mean": change.mean(), "perturbation_max": change.max()}
