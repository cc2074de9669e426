"""How outliers are made from the training images themselves."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn

from oodserve.schema import Document
from train.draw import Draw
from train.methods.synthesis.gaussian import gaussian_outliers
from train.methods.synthesis.gradient import (
    GradientMode,
    Target,
    gradient_outliers,
    true_class_gradient,
)
from train.methods.synthesis.shuffle import shuffled_outliers


class SynthesisSettings(Document):
    """ASCOOD's knobs; the defaults are its authors' for fine-grained aircraft and cars."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: Literal["gradient", "shuffle", "gaussian"] = "gradient"
    """``gradient`` adds the true class's gradient where it is largest; ``shuffle`` permutes the
    pixels that speak most for the true class; ``gaussian`` is noise without the image."""
    p_inv: float = Field(default=0.1, gt=0, le=1)
    """Share of an image's intensities that ``gradient`` changes, or of its pixels that ``shuffle``
    permutes; ``gaussian`` does not look at it."""
    alpha_max: float = Field(default=0.1, gt=0)
    """Strength of the change at the start of training; for ``gaussian`` the noise's standard
    deviation, for ``shuffle`` without effect. It depends on image size, backbone and sigma: tune it
    anew for each, looking at the logged perturbation."""
    alpha_min: float = Field(default=0.1, gt=0)
    """Strength of the change in the last epoch."""
    direction: Literal["add", "subtract"] = "add"
    """Sign of the change that ``gradient`` makes. The paper finds that subtracting makes outliers
    that are too easy."""
    target: Target = "logit"
    """What of the true class is differentiated: its ``logit``, or its ``softmax`` probability."""
    gradient_mode: GradientMode = "eval"
    """By which statistics BatchNorm normalises meanwhile: ``eval`` takes the running ones, which
    keep the images apart; ``train`` the batch's, and leaves the running ones as they are."""
    partner: Literal["self", "permuted"] = "self"
    """Which image the outlier that goes with an image is made from, for a method that mixes the
    two: the image itself (``self``), or another one of the batch (``permuted``), drawn anew in
    each step. Method ``ascood`` pairs nothing and does not look at it."""

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
        (N, 3, H, W) to (N, K); left as it is. Not run for ``gaussian``.
    images : (B, C, H, W) float
        Normalised.
    labels : (B,) int64
    settings : SynthesisSettings
    draw : Draw
        The step's randomness and epoch.

    Raises
    ------
    RecipeError
        `settings.p_inv` of these images is too little.
    """
    if settings.kind == "gaussian":
        return gaussian_outliers(images, strength=_strength(settings, draw), draw=draw)
    gradient = true_class_gradient(
        model, images, labels, target=settings.target, mode=settings.gradient_mode
    )
    return outliers_by_gradient(images, gradient, settings=settings, draw=draw)


def outliers_by_gradient(
    images: Tensor, gradient: Tensor, *, settings: SynthesisSettings, draw: Draw
) -> Tensor:
    """Return what `synthesise` does, for ``gradient`` and ``shuffle``, from a gradient at hand."""
    if settings.kind == "shuffle":
        return shuffled_outliers(images, gradient, share=settings.p_inv, draw=draw)
    sign = 1 if settings.direction == "add" else -1
    strength = sign * _strength(settings, draw)
    return gradient_outliers(images, gradient, strength=strength, share=settings.p_inv)


def _strength(settings: SynthesisSettings, draw: Draw) -> float:
    return strength_at(
        draw.epoch,
        epochs=draw.epochs,
        alpha_max=settings.alpha_max,
        alpha_min=settings.alpha_min,
    )
