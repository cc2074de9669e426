"""What every training method is: settings that a recipe states, and an objective to minimise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from oodserve.errors import RecipeError
from oodserve.schema import Document


class Settings(Document):
    """Base of the methods' settings: what a recipe's ``[method]`` table may state."""

    needs_outliers: ClassVar[bool] = False
    """Whether each step takes a batch of outlier images."""
    needs_zscore: ClassVar[bool] = False
    """Whether the model must standardise its features (``feature_norm = "zscore"``)."""


@dataclass(frozen=True)
class TrainingBatch:
    """What one step of training sees.

    Attributes
    ----------
    images : (B, 3, H, W) float
        Normalised in-distribution images.
    labels : (B,) int64
        Their classes.
    outliers : (B, 3, H, W) float or None
        Normalised images of none of the classes.
    """

    images: Tensor
    labels: Tensor
    outliers: Tensor | None = None


@dataclass(frozen=True)
class Draw:
    """Where one step's randomness comes from, and how far training is.

    Attributes
    ----------
    rng : numpy.random.Generator
        For single numbers: mixing coefficients, boxes.
    torch_generator : torch.Generator
        For tensors: noise, permutations.
    progress : float
        Share of the stage's steps already done, in [0, 1].
    epoch, epochs : int
        The current epoch, counted from 1, and how many there are.
    """

    rng: np.random.Generator
    torch_generator: torch.Generator
    progress: float
    epoch: int
    epochs: int


class Method(Protocol):
    """A training objective. It holds its settings and no state, so a resumed run needs neither."""

    @property
    def needs_outliers(self) -> bool:
        """Whether `TrainingBatch.outliers` must be there."""

    @property
    def forwards(self) -> int:
        """Train-mode passes of the model per step: how many batches BatchNorm sees."""

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return the scalar terms of one step; ``"loss"`` is the one to minimise.

        The other terms are unweighted and for the log. The model maps (N, 3, H, W) images to
        (N, K) logits and comes in train mode.
        """


def outliers_of(batch: TrainingBatch, *, method: str) -> Tensor:
    """Return the batch's outliers, one for each in-distribution image.

    Raises
    ------
    RecipeError
        There are none, or not as many as in-distribution images.
    """
    if batch.outliers is None:
        raise RecipeError(
            f"method `{method}` needs outlier images and the batch has none; set `data.outliers`"
        )
    if len(batch.outliers) != len(batch.images):
        raise RecipeError(
            f"method `{method}` pairs each image with one outlier, but the batch has "
            f"{len(batch.images)} images and {len(batch.outliers)} outliers; "
            "set `finetune.outlier_batch_size` to 0"
        )
    return batch.outliers
