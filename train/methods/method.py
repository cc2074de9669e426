"""What every training method is: settings that a recipe states, and an objective to minimise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict
from torch import Tensor, nn

from oodserve.errors import RecipeError
from oodserve.schema import Document
from train.draw import Draw
from train.networks.classifier import Classifier

__all__ = ["Draw", "Embedded", "Method", "Settings", "TrainingBatch", "outliers_of"]


class Settings(Document):
    """Base of the methods' settings: what a recipe's ``[method]`` table may state."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    needs_outliers: ClassVar[bool] = False
    """Whether each step takes a batch of outlier images."""
    pairs_outliers: ClassVar[bool] = False
    """Whether each image meets one outlier, so that there must be as many of both."""
    source: ClassVar[str] = ""
    """Authors, year and arXiv number of the paper."""

    @property
    def method_name(self) -> str:
        """The name that the method is registered by."""
        return str(type(self).model_fields["name"].default)


@dataclass(frozen=True)
class TrainingBatch:
    """What one step of training sees.

    Attributes
    ----------
    images : (B, 3, H, W) float
        Normalised in-distribution images.
    labels : (B,) int64
        Their classes.
    outliers : (B', 3, H, W) float or None
        Normalised images of none of the classes.
    """

    images: Tensor
    labels: Tensor
    outliers: Tensor | None = None


@dataclass(frozen=True)
class Embedded:
    """What a model in eval mode makes of labelled images, on the CPU.

    Attributes
    ----------
    features : (N, D) float32
    logits : (N, K) float32
    labels : (N,) int64
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


class Method(ABC):
    """A training objective. It holds its settings and no state, so a resumed run needs neither.

    What a method learns beside the network belongs to the model: `attach` puts it there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def needs_outliers(self) -> bool:
        """Whether `TrainingBatch.outliers` must be there."""
        return self._settings.needs_outliers

    def attach(self, model: Classifier) -> None:  # noqa: B027 (most methods add nothing)
        """Give the model the parts that the method trains beside the network.

        Called before the method's stage begins and whenever a model that it trained is read. Draws
        from torch's global generator.

        Raises
        ------
        RecipeError
            The settings do not fit the model.
        """

    def initialise(  # noqa: B027 (most methods add nothing)
        self, model: Classifier, embed: Callable[[], Embedded]
    ) -> None:
        """Set what `attach` put there, once, before the first step.

        Parameters
        ----------
        model : Classifier
            As `attach` left it.
        embed : callable
            Returns the training images' features and labels, by the model in eval mode and by the
            head that it had before `attach`; costs a pass over them.
        """

    @abstractmethod
    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return the scalar terms of one step; ``"loss"`` is the one to minimise.

        The other terms are unweighted and for the log. The model maps (N, 3, H, W) images to
        (N, K) logits and comes in train mode.
        """


def outliers_of(batch: TrainingBatch, *, settings: Settings) -> Tensor:
    """Return the batch's outliers.

    Raises
    ------
    RecipeError
        There are none, or the method pairs them and there are not as many as images.
    """
    method = settings.method_name
    if batch.outliers is None:
        raise RecipeError(
            f"method `{method}` needs outlier images and the batch has none; set `data.outliers`"
        )
    if settings.pairs_outliers and len(batch.outliers) != len(batch.images):
        raise RecipeError(
            f"method `{method}` pairs each image with one outlier, but the batch has "
            f"{len(batch.images)} images and {len(batch.outliers)} outliers; "
            "set `finetune.outlier_batch_size` to 0"
        )
    return batch.outliers
