"""ICE: outliers pushed away from Gaussian classes, which keeps the classes' own confidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from train.methods.losses import cross_entropy
from train.methods.method import (
    Draw,
    Embedded,
    Method,
    Settings,
    TrainingBatch,
    outliers_of,
)
from train.methods.passes import first_statistics, joint_logits, unwrapped
from train.methods.stable import log_one_minus_exp
from train.networks.classifier import Classifier
from train.networks.gaussian import Covariance, GaussianHead
from train.networks.norms import normalise_features


class IceSettings(Settings):
    """Gaussian classes, pulled onto images and away from outliers; score them by `ice`.

    Clip gradients (``finetune.gradient_clip_norm = 5``): near a mean they reach 1e4.
    """

    needs_outliers: ClassVar[bool] = True
    source: ClassVar[str] = "Wu et al., 2023 (arXiv 2208.13433)"

    name: Literal["ice"] = "ice"
    weight: float = Field(default=0.1, ge=0)
    """Weight of both distance terms (the paper's lambda, for which it states no value). At the
    start the images' term is 1, so 0.1 leaves the cross-entropy in charge. With a full covariance
    that can be too little for the score `ice`: on drawn birds 1 was far better. Try 0.01 to 1."""
    covariance: Covariance = "full"
    """Whether the common shape of the classes has correlations (``full``) or one deviation for each
    feature (``diag``). Take ``diag`` where there are fewer training images than features: ``full``
    then starts from a shape that new images lie hundreds of times further out of."""
    ridge: float = Field(default=1e-3, gt=0)
    """What the shape's diagonal starts with in addition, as a share of the mean variance."""


class Ice(Method):
    r"""ICE: :math:`CE(h, y) + \lambda \{ E[-h_y] + E_{out}[-\log(1 - e^{\max_i h_i})] \}`.

    h are the logits of a `GaussianHead`, which takes the classifier's place; it starts from the
    training images' features by the network as it is before the first step. Pretrain that for fifty
    steps or more, or not at all: after a few, BatchNorm's running statistics are still far from the
    batches', h is hundreds below 0, and outliers give no gradient. Images and outliers pass the
    model as one batch.

    References
    ----------
    Wu et al., 2023 (arXiv 2208.13433), equation 0.15. Its ablation shows that the images' distance
    term is what the method depends on.
    """

    def __init__(self, settings: IceSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def attach(self, model: Classifier) -> None:
        """Put a Gaussian head in the classifier's place."""
        model.head = GaussianHead(
            model.n_features, model.n_classes, covariance=self.settings.covariance
        ).train(model.training)

    def initialise(self, model: Classifier, embed: Callable[[], Embedded]) -> None:
        """Start the head from the training images' features; see `GaussianHead.start_from`.

        Where BatchNorm has seen no batch yet, it first gets the training images' statistics.
        """
        with first_statistics(model) as unseen:
            if unseen:
                embed()
        embedded = embed()
        features = normalise_features(embedded.features, model.feature_norm, sigma=model.sigma)
        gaussian_head(model).start_from(features, embedded.labels, ridge=self.settings.ridge)

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, ``inside``, ``outside`` and what to watch.

        ``scale`` is the mean of L's diagonal. ``confidence`` and ``outlier_confidence`` are the
        means of the exponentials of h_y and of the outliers' largest h. No term but the
        cross-entropy and ``outside`` keeps L from growing and both confidences from reaching 1.
        """
        outliers = outliers_of(batch, settings=self.settings)
        inner, outer = joint_logits(model, batch.images, outliers)
        head = gaussian_head(unwrapped(model))
        own = inner.gather(1, batch.labels.unsqueeze(1)).squeeze(1)
        nearest = outer.masked_fill(~head.populated, -torch.inf).amax(dim=1)
        clean, inside = cross_entropy(inner, batch.labels), -own.mean()
        outside = -log_one_minus_exp(nearest).mean()
        return {
            "loss": clean + self.settings.weight * (inside + outside),
            "cross_entropy": clean,
            "inside": inside,
            "outside": outside,
            "scale": head.log_diagonal.detach().exp().mean(),
            "confidence": own.detach().exp().mean(),
            "outlier_confidence": nearest.detach().exp().mean(),
        }


def gaussian_head(model: Classifier) -> GaussianHead:
    """Return the model's head, which `Ice.attach` put there."""
    assert isinstance(model.head, GaussianHead)
    return model.head
