"""ODIN: the softmax at a high temperature, after a step that makes the image more certain."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.networks.classifier import Classifier
from train.scorers.gradient.probing import Probe, Probing
from train.scorers.scorer import FitData, Scorer, ScorerSettings


class OdinSettings(ScorerSettings):
    """Knobs of `Odin`."""

    temperature: float = Field(default=1000.0, gt=0)
    """T. At 1000 the score is nearly linear in the logits and close to 1 / K."""
    epsilon: float = Field(default=0.0014, ge=0, le=0.1)
    """Length of the step for each colour value, where the pixel range is 0 to 1; 0 for none."""


class Odin(Scorer):
    r"""Softmax at a temperature after a step on the image, :math:`\max_k p_k(\tilde x; T)`.

    :math:`p(x; T) = \operatorname{softmax}(z(x) / T)` and
    :math:`\tilde x = x - \varepsilon \operatorname{sign}(\nabla_x (-\log p_{\hat y}(x; T)))`
    with :math:`\hat y` the predicted class and sign(0) = 1. The step is taken in pixels of range
    0 to 1: in normalised ones it is divided by the channel's standard deviation. The result is
    not clipped to that range.

    Takes the logits after the step and those before, which it ignores, (N, K) each; returns (N,)
    float32 in [1/K, 1], larger = more in-distribution. Costs a backward and a second forward pass.

    At T = 1000 a logit's change of d moves the score by about d / (1000 K): float32 does not tell
    changes below 10⁻⁴ from one another.

    References
    ----------
    Liang et al., 2018 (arXiv 1706.02690), equations 1 and 2. The printed sign of the step is that
    of the gradient of log p, negated twice; the division by the standard deviation is in the code.
    """

    takes = "moved"
    needs_fit = True
    source = "Liang et al., 2018 (arXiv 1706.02690)"

    std: Tensor

    def __init__(self, settings: OdinSettings | None = None) -> None:
        super().__init__()
        settings = settings or OdinSettings()
        self.temperature, self.epsilon = settings.temperature, settings.epsilon
        self.declare("std")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a model with a part through which the gradient cannot be written out."""
        Probing(model)

    def fit(self, data: FitData) -> None:
        """Keep the standard deviations by which the model's input is divided.

        Raises
        ------
        RecipeError
            As `check`.
        """
        self.check(data.model, len(data.train.labels))
        self.std = torch.tensor(data.std)

    def moved(self, images: Tensor, probe: Probe) -> Tensor:
        """Return normalised images, (N, 3, H, W), after the step.

        Parameters
        ----------
        images : (N, 3, H, W) float
            Normalised.
        probe : Probe
            Of these images.
        """
        gradient = probe.pull_back(gradient_at_logits(probe.logits.float() / self.temperature))
        return images - self.epsilon / self.std.reshape(1, -1, 1, 1) * self.direction(gradient)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return where the loss grows, as +1 and -1, from its gradient, (N, 3, H, W)."""
        return torch.where(gradient >= 0, 1.0, -1.0)

    def forward(self, moved: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row.

        Parameters
        ----------
        moved : (N, K) float
            Logits of what `moved` returns.
        logits : (N, K) float
        """
        return torch.softmax(moved.float() / self.temperature, dim=1).amax(dim=1)


def gradient_at_logits(scaled: Tensor) -> Tensor:
    r"""Return the gradient of :math:`-\log p_{\hat y}` with respect to scaled logits, (N, K).

    That is p - e, with e = 1 at the predicted class, where p - 1 is written as the negated sum of
    the others: it does not vanish as soon as p rounds to 1. The factor 1 / T of the gradient at
    the logits themselves is left out; it changes neither signs nor order.
    """
    classes = torch.arange(scaled.shape[1], device=scaled.device)
    predicted = classes == scaled.argmax(dim=1, keepdim=True)
    others = torch.softmax(scaled, dim=1).masked_fill(predicted, 0.0)
    return torch.where(predicted, -others.sum(dim=1, keepdim=True), others)
