"""How outliers are made from the training images themselves."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn

from oodserve.schema import Document
from train.draw import Draw
from train.methods.synthesis.gradient import gradient_outliers


class SynthesisSettings(Document):
    """ASCOOD's knobs; the defaults are its authors' for fine-grained aircraft and cars."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    p_inv: float = Field(default=0.1, gt=0, le=1)
    """Share of an image's intensities that are changed."""
    alpha_max: float = Field(default=0.1, gt=0)
    """Strength of the change at the start of training. It depends on image size, backbone and
    sigma: tune it anew for each, looking at the logged perturbation."""
    alpha_min: float = Field(default=0.1, gt=0)
    """Strength of the change in the last epoch."""

    @model_validator(mode="after")
    def _alpha_falls(self) -> Self:
        if self.alpha_min > self.alpha_max:
            raise ValueError(
                f"`alpha_min` = {self.alpha_min} is above `alpha_max` = {self.alpha_max}; "
                "the strength falls over the epochs"
            )
        return self


def strength_at(epoch: int, *, epochs: int, alpha_max: float, alpha_min: float) -> float:
    """Return ASCOOD's alpha in an epoch, counted from 1: linear, exactly `alpha_min` in the last.

    >>> [strength_at(e, epochs=4, alpha_max=300, alpha_min=100) for e in (1, 2, 4)]
    [250.0, 200.0, 100.0]
    """
    return alpha_min + (alpha_max - alpha_min) * (1 - epoch / epochs)


def synthesise(
    model: nn.Module, images: Tensor, labels: Tensor, *, settings: SynthesisSettings, draw: Draw
) -> Tensor:
    """Return one outlier made from each image, (B, C, H, W), detached from the graph.

    Parameters
    ----------
    model : nn.Module
        (N, 3, H, W) to (N, K); left as it is.
    images : (B, C, H, W) float
        Normalised.
    labels : (B,) int64
    settings : SynthesisSettings
    draw : Draw
        The step's randomness and epoch.
    """
    strength = strength_at(
        draw.epoch,
        epochs=draw.epochs,
        alpha_max=settings.alpha_max,
        alpha_min=settings.alpha_min,
    )
    return gradient_outliers(model, images, labels, strength=strength, share=settings.p_inv)
