"""Maximum softmax probability at the temperature that calibrates it."""

from __future__ import annotations

import torch
from torch import Tensor

from train.scorers.scorer import FitData, Scorer

LARGEST, SMALLEST = 100.0, 0.05
"""Bounds of the temperature."""

_HALVINGS = 60
"""Of an interval of ln T of length 7.6: to far below the resolution of float64."""


class Temperature(Scorer):
    r"""Calibrated maximum softmax, :math:`\max_k \mathrm{softmax}(z / T^*)_k`.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32 in [1/C, 1],
    larger = more in-distribution. :math:`T^*` makes the validation images' labels most likely; see
    `best_temperature`.

    References
    ----------
    Guo et al., 2017 (arXiv 1706.04599), section 4.2.
    """

    needs_fit = True
    source = "Guo et al., 2017 (arXiv 1706.04599)"

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("temperature")

    def fit(self, data: FitData) -> None:
        """Find the temperature on the validation images."""
        best = best_temperature(data.validation.logits, data.validation.labels)
        self.temperature = torch.tensor(best, dtype=torch.float32)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return torch.softmax(logits.float() / self.temperature, dim=1).amax(dim=1)


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    r"""Return the temperature at which the labels' mean negative log-likelihood is smallest.

    Parameters
    ----------
    logits : (N, K) float
    labels : (N,) int64

    Returns
    -------
    float
        Within `SMALLEST` and `LARGEST`. It is the smallest where every label has the largest logit
        (the likelihood then grows as T falls) and the largest where the logits are no better than
        chance.

    Notes
    -----
    The loss is convex in :math:`b = 1/T`, with slope
    :math:`\frac1N \sum_n (\sum_k p_{nk} z_{nk} - z_{n y_n})`. So the optimum is where the slope
    changes its sign, found in float64 by halving an interval of :math:`\ln T`. Gradient descent on
    T, as is common, stops early: the loss is flat.
    """
    values = logits.double()
    # Relative to the label's logit: the slope is then a mean of p z.
    margins = values - values.gather(1, labels.unsqueeze(1))
    low, high = torch.tensor([SMALLEST, LARGEST], dtype=torch.float64).log()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = (torch.softmax(values / middle.exp(), dim=1) * margins).sum(dim=1).mean()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(high.exp())
