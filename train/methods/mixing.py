"""Mixing images with outliers or with each other: coefficients, images, logits and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from train.methods.method import Draw, Settings

Operation = Literal["mixup", "cutmix"]
Sharing = Literal["batch", "sample"]
LamRule = Literal["as_drawn", "min"]
"""Whether mixing coefficients stay as drawn; `MixingSettings.lam_rule`."""
Consistency = Literal["none", "l2", "mse"]
"""No consistency term, or its `train.methods.losses.Distance`."""

Box = tuple[int, int, int, int]
"""Top, bottom, left, right of a rectangle of pixels; bottom and right are exclusive."""


class CoefficientSettings(Settings):
    """How much of each image is kept when it is mixed with another."""

    mix_alpha: float = Field(default=1.0, gt=0)
    """Both parameters of the Beta distribution of the mixing coefficient; the first one where
    `mix_beta_shape` is stated. Below 1 most mixtures are nearly one of the two images, above 1 most
    are in between."""
    mix_beta_shape: float | None = Field(default=None, gt=0)
    """Second parameter of that distribution, where it is not to be `mix_alpha`: the larger it is,
    the less of the first image is kept."""
    operation: Operation = "mixup"
    """``mixup`` blends the whole image, ``cutmix`` pastes a patch of the other one."""
    lam_per: Sharing = "batch"
    """One mixing coefficient for the whole ``batch``, or one for each ``sample``."""

    def coefficients(self, rng: np.random.Generator, *, size: int) -> NDArray[np.float64]:
        """Draw (size,) coefficients in [0, 1]: how much of the first image is kept."""
        second = self.mix_alpha if self.mix_beta_shape is None else self.mix_beta_shape
        return rng.beta(self.mix_alpha, second, size=size)


class MixingSettings(CoefficientSettings):
    """What the methods that mix images with outliers have in common."""

    needs_outliers: ClassVar[bool] = True
    pairs_outliers: ClassVar[bool] = True

    mix_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy on mixed samples (the papers' beta)."""
    lam_rule: LamRule = "as_drawn"
    """``min`` replaces each drawn coefficient lam by min(lam, 1 - lam), so that the outlier always
    outweighs the image; a box of ``cutmix`` that is clipped at the border leaves more."""
    consistency: Consistency = "none"
    """Distance between mixed logits and logits of mixed images, added to the loss."""
    consistency_weight: float = Field(default=1.0, ge=0)
    """Weight of that distance."""

    def coefficients(self, rng: np.random.Generator, *, size: int) -> NDArray[np.float64]:
        """Draw (size,) coefficients: how much of the in-distribution image is kept."""
        lam = super().coefficients(rng, size=size)
        return np.minimum(lam, 1 - lam) if self.lam_rule == "min" else lam


@dataclass(frozen=True)
class Mixture:
    """One step's draw: how much of each in-distribution image is kept.

    Attributes
    ----------
    lam : (B,) float64
        Weight of the in-distribution image, or of the first of two, in [0, 1].
    boxes : tuple of Box, or None
        With ``cutmix``, for each image the rectangle that the other fills; `lam` is then exactly
        the share of pixels outside of it. None with ``mixup``.
    """

    lam: NDArray[np.float64]
    boxes: tuple[Box, ...] | None = None


def mixture_for(images: Tensor, draw: Draw, *, settings: CoefficientSettings) -> Mixture:
    """Return the mixture of this process's (B, 3, H, W) images, drawn for the whole batch."""
    rows = len(images)
    shape = (rows * draw.processes, *images.shape[1:])
    whole = draw_mixture(draw.rng, shape, settings=settings)
    mine = slice(draw.rank * rows, (draw.rank + 1) * rows)
    return Mixture(lam=whole.lam[mine], boxes=whole.boxes[mine] if whole.boxes else None)


def draw_mixture(
    rng: np.random.Generator, shape: tuple[int, ...], *, settings: CoefficientSettings
) -> Mixture:
    """Draw the coefficients, and with ``cutmix`` the boxes, of one batch.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (B, channels, H, W)
        Of the images.
    settings : CoefficientSettings
        The distribution of the coefficients, `operation` and `lam_per`.

    Notes
    -----
    A box has sides int(H sqrt(1 - lam)) and int(W sqrt(1 - lam)) about a uniform centre and is
    clipped at the border; `lam` is then recomputed from the area that is left.
    """
    size = shape[0]
    draws = 1 if settings.lam_per == "batch" else size
    lam = settings.coefficients(rng, size=draws)
    if settings.operation == "mixup":
        return Mixture(lam=np.broadcast_to(lam, size).copy())
    boxes = [_draw_box(rng, float(value), height=shape[2], width=shape[3]) for value in lam]
    every = tuple(boxes * (size // draws))
    return Mixture(lam=_kept_share(every, height=shape[2], width=shape[3]), boxes=every)


def mix_images(images: Tensor, outliers: Tensor, mixture: Mixture) -> Tensor:
    """Return lam * images + (1 - lam) * outliers, or the images with patches of the outliers.

    Parameters
    ----------
    images, outliers : (B, 3, H, W) float
        The i-th image meets the i-th outlier.
    mixture : Mixture

    References
    ----------
    MixOE (arXiv 2106.03917), section 3; Logit MixOE (arXiv 2509.11892), equation 10. With
    ``cutmix`` the patch comes from the outlier, which MixOE's authors found better than the
    reverse.
    """
    if mixture.boxes is None:
        return mix_rows(images, outliers, mixture)
    mixed = images.clone()
    for row, (top, bottom, left, right) in enumerate(mixture.boxes):
        mixed[row, :, top:bottom, left:right] = outliers[row, :, top:bottom, left:right]
    return mixed


def mix_rows(inside: Tensor, outside: Tensor, mixture: Mixture) -> Tensor:
    """Return lam * inside + (1 - lam) * outside for (B, ...) tensors, row by row."""
    lam = torch.as_tensor(mixture.lam, dtype=inside.dtype, device=inside.device)
    lam = lam.reshape(-1, *(1,) * (inside.ndim - 1))
    return lam * inside + (1 - lam) * outside


def soft_targets(labels: Tensor, mixture: Mixture, *, like: Tensor) -> Tensor:
    """Return the labels of mixed samples: lam * onehot(y) + (1 - lam) / K.

    Parameters
    ----------
    labels : (B,) int64
    mixture : Mixture
    like : (B, K) float
        Logits, which give the number of classes, dtype and device.

    Returns
    -------
    (B, K) float
        Rows sum to 1.

    References
    ----------
    Logit MixOE (arXiv 2509.11892), equation 11.
    """
    onehot = one_hot(labels, like=like)
    return mix_rows(onehot, torch.full_like(onehot, 1 / like.shape[1]), mixture)


def one_hot(labels: Tensor, *, like: Tensor) -> Tensor:
    """Return (B,) labels as rows of zeros with a one; (B, K), in the dtype of the logits `like`."""
    return torch.nn.functional.one_hot(labels, like.shape[1]).to(like.dtype)


def _draw_box(rng: np.random.Generator, lam: float, *, height: int, width: int) -> Box:
    rows, columns = int(height * math.sqrt(1 - lam)), int(width * math.sqrt(1 - lam))
    top = int(rng.integers(height)) - rows // 2
    left = int(rng.integers(width)) - columns // 2
    return max(top, 0), min(top + rows, height), max(left, 0), min(left + columns, width)


def _kept_share(boxes: tuple[Box, ...], *, height: int, width: int) -> NDArray[np.float64]:
    areas = [(bottom - top) * (right - left) for top, bottom, left, right in boxes]
    return 1 - np.array(areas, dtype=np.float64) / (height * width)
