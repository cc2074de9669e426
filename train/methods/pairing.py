"""Mixing the images of a batch with each other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from train.methods.method import Draw, TrainingBatch
from train.methods.mixing import (
    CoefficientSettings,
    Mixture,
    mix_images,
    mix_rows,
    mixture_for,
    one_hot,
)


@dataclass(frozen=True)
class Pairs:
    """One step's draw: which image each image is mixed with, and how.

    Attributes
    ----------
    mixture : Mixture
        Of the image and its partner; `lam` is the image's weight.
    permutation : (B,) int64
        The partner's row in the global batch.
    images : (B, 3, H, W) float
        The partners.
    labels : (B,) int64
        Their classes.
    """

    mixture: Mixture
    permutation: Tensor
    images: Tensor
    labels: Tensor

    def mixed(self, images: Tensor) -> Tensor:
        """Return each image of the batch mixed with its partner, (B, 3, H, W)."""
        return mix_images(images, self.images, self.mixture)

    def targets(self, labels: Tensor, *, like: Tensor) -> Tensor:
        """Return lam * onehot(y) + (1 - lam) * onehot(y of the partner).

        Parameters
        ----------
        labels : (B,) int64
            Of the batch.
        like : (B, K) float
            Logits, which give the number of classes, dtype and device.

        Returns
        -------
        (B, K) float
            Rows sum to 1.
        """
        own, other = one_hot(labels, like=like), one_hot(self.labels, like=like)
        return mix_rows(own, other, self.mixture)


def pairs_for(batch: TrainingBatch, draw: Draw, *, settings: CoefficientSettings) -> Pairs:
    """Draw the partners, which over all processes are a permutation, and the mixture.

    References
    ----------
    Mixup (arXiv 1710.09412), section 2; CutMix (arXiv 1905.04899), section 3.1.
    """
    permutation = draw.permutation(len(batch.images))
    return Pairs(
        mixture=mixture_for(batch.images, draw, settings=settings),
        permutation=permutation,
        images=draw.partners(batch.images, permutation),
        labels=draw.partners(batch.labels, permutation),
    )
