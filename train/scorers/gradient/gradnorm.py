"""Size of the gradient that would draw the prediction to uniform."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.networks.classifier import Classifier
from train.scorers.scorer import FitData, Scorer, ScorerSettings, linear_head


class GradNormSettings(ScorerSettings):
    """Knobs of `GradNorm`."""

    temperature: float = Field(default=1.0, gt=0)
    """T, by which the logits are divided."""


class GradNorm(Scorer):
    r"""L1 norm of a gradient at the head, :math:`\|\partial_W \mathrm{KL}(u \| p)\|_1`.

    p is :math:`\operatorname{softmax}(z / T)`, u is uniform and W the weight of the linear head.
    The gradient is the outer product :math:`\frac{1}{T} (p - u) h^\top` of the head's input h, so
    its norm is :math:`\frac{1}{T} \|p - u\|_1 \|h\|_1` and nothing need be differentiated.

    Takes features (N, D), on which the model's own normalisation is done, and logits (N, K);
    returns (N,) float32, at least 0, larger = more in-distribution.

    References
    ----------
    Huang et al., 2021 (arXiv 2110.00218), equations 4 and 8; their code has K times the value.
    """

    takes = "features"
    needs_fit = True
    source = "Huang et al., 2021 (arXiv 2110.00218)"

    centred: Tensor
    scaled: Tensor
    sigma: Tensor

    def __init__(self, settings: GradNormSettings | None = None) -> None:
        super().__init__()
        self.temperature = (settings or GradNormSettings()).temperature
        self.declare("centred", "scaled", "sigma")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a head that is not linear."""
        linear_head(model, "gradnorm")

    def fit(self, data: FitData) -> None:
        """Keep how the model normalises features: as numbers, which a state can hold.

        Raises
        ------
        RecipeError
            The head is not linear.
        """
        data.linear_head("gradnorm")
        norm = data.model.feature_norm
        self.centred = torch.tensor(float(norm == "zscore"))
        self.scaled = torch.tensor(float(norm != "none"))
        self.sigma = torch.tensor(data.model.sigma if norm != "none" else 1.0)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        probabilities = torch.softmax(logits.float() / self.temperature, dim=1)
        away = (probabilities - 1 / probabilities.shape[1]).abs().sum(dim=1)
        return away * self._head_input(features.float()).abs().sum(dim=1) / self.temperature

    def _head_input(self, features: Tensor) -> Tensor:
        """Return what the head sees; see `train.networks.norms.normalise_features`."""
        values = features - self.centred * features.mean(dim=1, keepdim=True)
        variance = values.square().sum(dim=1, keepdim=True) / (values.shape[1] - 1)
        length = torch.where(self.scaled > 0, torch.sqrt(variance + 1e-6), 1.0)
        return self.sigma * values / length
