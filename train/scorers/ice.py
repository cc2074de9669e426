"""The confidence of ICE's Gaussian classes."""

from __future__ import annotations

import torch
from torch import Tensor

from oodserve.errors import RecipeError
from train.networks.classifier import Classifier
from train.networks.gaussian import GaussianHead
from train.scorers.scorer import FitData, Scorer


class Ice(Scorer):
    r"""Minus the squared distance to the nearest class, :math:`\max_i h_i`; larger = more in-dist.

    Takes features (N, D), which it ignores, and a Gaussian head's logits h (N, K); returns (N,)
    float32, at most 0. :math:`e^{\max_i h_i}` is the confidence, but it underflows to 0 for far
    images, which then could not be ranked. Classes without training images do not count.

    References
    ----------
    Wu et al., 2023 (arXiv 2208.13433), section "Method".
    """

    needs_fit = True
    source = "Wu et al., 2023 (arXiv 2208.13433)"

    penalty: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("penalty")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a head that is not Gaussian."""
        _gaussian_head(model)

    def fit(self, data: FitData) -> None:
        """Learn which classes have training images: (K,), 0 for those and -inf for the others.

        Raises
        ------
        RecipeError
            The model's head is not Gaussian.
        """
        populated = _gaussian_head(data.model).populated.cpu()
        self.penalty = torch.zeros(len(populated)).masked_fill(~populated, -torch.inf)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return (logits.float() + self.penalty).amax(dim=1)


def _gaussian_head(model: Classifier) -> GaussianHead:
    if not isinstance(model.head, GaussianHead):
        raise RecipeError(
            f"score `ice` needs the Gaussian head of method `ice`, but the model has a "
            f"`{type(model.head).__name__}`; choose another score or set `method.name` to 'ice'"
        )
    return model.head
