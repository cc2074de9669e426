"""What every score is: a module from what the network computes to one number per image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from oodserve.errors import RecipeError
from oodserve.schema import Document
from train.methods.method import Embedded
from train.networks.classifier import Classifier, Maps

Takes = Literal["features", "maps", "rotations", "moved"]
"""What a scorer looks at beside the logits:

``features``
    (N, D), the pooled output of the backbone before any normalisation.
``maps``
    Tuple of (N, C_l, H_l, W_l), the output of each residual stage.
``rotations``
    Tuple of four (N, D): the features of the image as it is and turned by 90, 180 and 270 degrees.
``moved``
    (N, K), the logits of the image after a step along the gradient. Such a scorer has a method
    ``moved(images, probe)`` that returns the image after it; see `train.scorers.gradient`.
"""

Given = Tensor | tuple[Tensor, ...]
"""What `Takes` says."""


class ScorerSettings(Document):
    """Base of the scores' settings: what a recipe's ``[scorers.NAME]`` table may state."""

    model_config = ConfigDict(use_attribute_docstrings=True)


@dataclass(frozen=True)
class MapsBatch:
    """Stage maps of a few images, on the CPU, by the model in eval mode.

    Attributes
    ----------
    maps : tuple of (n, C_l, H_l, W_l) float32
    logits : (n, K) float32
    labels : (n,) int64
    """

    maps: Maps
    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class FitData:
    """What a score is fitted on: in-distribution images alone.

    Attributes
    ----------
    model : Classifier
        In eval mode, on the CPU. Must not be changed.
    train, validation : Embedded
        Features, logits and labels of the two splits, augmented by nothing.
    train_maps, validation_maps : callable
        Return an iterator over the same images' stage maps; each call costs a pass over them.
    seed : int
        Of the run, for what is sub-sampled.
    std : tuple of three floats
        What the model's input is divided by, for each channel; ones where nothing is.
    """

    model: Classifier
    train: Embedded
    validation: Embedded
    train_maps: Callable[[], Iterator[MapsBatch]]
    validation_maps: Callable[[], Iterator[MapsBatch]]
    seed: int
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.train.logits.shape[1])

    def linear_head(self, score: str) -> tuple[Tensor, Tensor]:
        """Return copies of the head's weight (K, D) and bias (K,).

        Raises
        ------
        RecipeError
            The head is not linear.
        """
        head = linear_head(self.model, score)
        return head.weight.detach().cpu().clone(), head.bias.detach().cpu().clone()


def linear_head(model: Classifier, score: str) -> nn.Linear:
    """Return the model's head.

    Raises
    ------
    RecipeError
        It is not linear.
    """
    if not isinstance(model.head, nn.Linear):
        raise RecipeError(
            f"score `{score}` needs a linear head, but the model has a "
            f"`{type(model.head).__name__}`; choose another score"
        )
    return model.head


class Scorer(nn.Module):
    """Base of the scores that can be part of an exported graph.

    A fitted one keeps what it learned in buffers. A new instance has them empty; `load_state_dict`
    takes their shapes from what it is given.
    """

    takes: ClassVar[Takes] = "features"
    needs_fit: ClassVar[bool] = False
    """Whether `fit` must have been called, or a state loaded, before `forward`."""
    source: ClassVar[str] = ""
    """Authors, year and arXiv number of the paper."""

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a model that the score cannot be fitted to, before anything is trained.

        Looks at the model's parts and never at its weights, which may be random still. What can
        only be seen from features is left to `fit`.

        Parameters
        ----------
        model : Classifier
            With what its method attaches, on the CPU.
        n_train : int
            How many training images there will be.

        Raises
        ------
        DataError
            There are too few images.
        RecipeError
            The score does not fit this model or so many images.
        """

    def fit(self, data: FitData) -> None:
        """Learn the score's statistics from in-distribution images.

        Raises
        ------
        RecipeError
            The score does not fit this model or these images.
        """

    @abstractmethod
    def forward(self, given: Any, logits: Tensor) -> Tensor:
        """Return the score of each row: (N,) float32, larger = more in-distribution.

        Parameters
        ----------
        given : Tensor or tuple of Tensor
            What `takes` says.
        logits : (N, K) float
        """

    def declare(self, *names: str) -> None:
        """Register empty buffers that `fit` replaces."""
        for name in names:
            self.register_buffer(name, torch.empty(0))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any
    ) -> None:
        for name, buffer in list(self._buffers.items()):
            saved = state_dict.get(prefix + name)
            if saved is not None and buffer is not None and saved.shape != buffer.shape:
                self._buffers[name] = torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
