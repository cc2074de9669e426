"""Virtual-logit matching."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from oodserve.errors import DataError, RecipeError
from train.networks.classifier import Classifier
from train.scorers.energy import log_sum_exp
from train.scorers.scorer import FitData, Scorer, ScorerSettings, linear_head

LEAST_RESIDUAL = 1e-6
"""Share of the features that must lie outside the principal subspace: below, it is rounding."""


class VimSettings(ScorerSettings):
    """Knobs of `Vim`."""

    dim: int = Field(default=0, ge=0)
    """Dimensions of the principal subspace. 0 for the authors' choice: 1000 from 2048 features
    on, 512 from 768 on, else half of them."""


class Vim(Scorer):
    r"""Energy less a virtual logit, :math:`\log\sum_k e^{z_k} - \alpha \|R^\top (f - u)\|_2`.

    :math:`u = -W^+ b` is the point that the head maps to zero logits, R spans what is left of the
    feature space beside the training features' principal subspace around u, and
    :math:`\alpha` makes the virtual logit as large as the largest real one on average.

    Takes features (N, D) and logits (N, K); returns (N,) float32, larger = more in-distribution.
    Where the model normalises features before its head, these are the features before that, as in
    the code of those who proposed such a model: u is then a mere choice of origin.

    References
    ----------
    Wang et al., 2022 (arXiv 2203.10807), equations 4 to 7, as the difference that the paper shows
    to order images as the softmax of the virtual logit does.
    """

    takes = "features"
    needs_fit = True
    source = "Wang et al., 2022 (arXiv 2203.10807)"

    origin: Tensor
    residual: Tensor
    alpha: Tensor

    def __init__(self, settings: VimSettings | None = None) -> None:
        super().__init__()
        self.dim = (settings or VimSettings()).dim
        self.declare("origin", "residual", "alpha")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a head that is not linear, and features or images of which nothing is left."""
        linear_head(model, "vim")
        size = model.n_features
        dim = self.dim or _authors_dim(size)
        if dim >= size:
            raise RecipeError(
                f"`scorers.vim.dim` = {dim} leaves nothing of {size} features; "
                "choose a smaller number"
            )
        if n_train <= dim:
            raise _nothing_left(n_train, dim)

    def fit(self, data: FitData) -> None:
        """Learn the subspace and alpha on the training images.

        Raises
        ------
        RecipeError
            The head is not linear, or there are not more features than `dim`.
        DataError
            The features fill no more than the principal subspace.
        """
        features = data.train.features.double()
        self.check(data.model, len(features))
        weight, bias = data.linear_head("vim")
        size = features.shape[1]
        dim = self.dim or _authors_dim(size)
        origin = -torch.linalg.pinv(weight.double()) @ bias.double()
        moved = features - origin
        _, directions = torch.linalg.eigh(moved.T @ moved / len(moved))  # ascending
        residual = directions[:, : size - dim]
        left, whole = (values.norm(dim=1).sum() for values in (moved @ residual, moved))
        if not left > LEAST_RESIDUAL * whole:
            raise _nothing_left(len(features), dim)
        largest = data.train.logits.double().amax(dim=1).sum()
        self.origin, self.residual = origin.float(), residual.float().contiguous()
        self.alpha = (largest / left).float()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        left = (features.float() - self.origin) @ self.residual  # (N, D - dim)
        return log_sum_exp(logits.float()) - self.alpha * torch.sqrt(left.square().sum(dim=1))


def _nothing_left(images: int, dim: int) -> DataError:
    return DataError(
        f"score `vim` cannot be fitted: the features of {images} training images "
        f"fill no more than `scorers.vim.dim` = {dim} dimensions; choose fewer"
    )


def _authors_dim(n_features: int) -> int:
    if n_features >= 2048:
        return 1000
    return 512 if n_features >= 768 else n_features // 2
