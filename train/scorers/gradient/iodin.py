"""i-ODIN: ODIN with the step confined to the colour values that matter most."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.gradient.odin import Odin, OdinSettings


class IOdinSettings(OdinSettings):
    """Knobs of `IOdin`."""

    entries: int = Field(default=1, ge=1, le=1000)
    """How many colour values of an image are changed."""


class IOdin(Odin):
    r"""Softmax at a temperature after a step on a few values, :math:`\max_k p_k(\tilde x; T)`.

    As `Odin`, but the step is taken in the `entries` colour values (a channel of a pixel) where
    the gradient is largest in size, and nowhere else.

    Takes the logits after the step and those before, which it ignores, (N, K) each; returns (N,)
    float32 in [1/K, 1], larger = more in-distribution. Costs as much as `Odin`. A single value
    moved by 0.0014 hardly changes the logits, so the score is close to that without a step.

    References
    ----------
    ASCOOD (arXiv 2411.10794), section on i-ODIN; the authors' code has one entry.
    """

    source = "Regmi et al., 2024 (arXiv 2411.10794)"

    def __init__(self, settings: IOdinSettings | None = None) -> None:
        settings = settings or IOdinSettings()
        super().__init__(settings)
        self.entries = settings.entries

    def direction(self, gradient: Tensor) -> Tensor:
        """Return +1 and -1 at the largest entries of each row, and 0 elsewhere."""
        flat = gradient.flatten(1)
        largest = torch.topk(flat.abs(), self.entries, dim=1).indices
        chosen = torch.zeros_like(flat).scatter(1, largest, 1.0).reshape(gradient.shape)
        return chosen * super().direction(gradient)
