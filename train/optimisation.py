"""Which parameters are optimised, and how."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from train.networks.classifier import Classifier
from train.recipes import StageRecipe


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimised alike."""

    names: list[str]
    parameters: list[nn.Parameter]
    weight_decay: float
    rate_factor: float
    """Their learning rate as a multiple of the schedule's."""


def parameter_groups(model: Classifier, settings: StageRecipe) -> list[ParameterGroup]:
    """Return the model's parameters by how they are optimised, groups without any left out.

    The head has a learning rate of its own, `StageRecipe.head_rate_factor` times the others'. One
    whose `decays` is False is spared weight decay.
    """
    inside, head = list[tuple[str, nn.Parameter]](), list[tuple[str, nn.Parameter]]()
    for name, parameter in model.named_parameters():
        (head if name.startswith("head.") else inside).append((name, parameter))
    decays = getattr(model.head, "decays", True)
    groups = [
        (inside, settings.weight_decay, 1.0),
        (head, settings.weight_decay if decays else 0.0, settings.head_rate_factor),
    ]
    return [
        ParameterGroup([name for name, _ in part], [value for _, value in part], decay, factor)
        for part, decay, factor in groups
        if part
    ]
