"""Which scores there are. A new one is a file of its own and one line here.

A scorer is a torch module that maps features (N, D) and logits (N, C) to (N,) float32, larger =
more in-distribution. It becomes part of the exported graph, so each runtime returns the same score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from oodserve.errors import RecipeError
from train.scorers.energy import Energy
from train.scorers.max_logit import MaxLogit
from train.scorers.msp import Msp

SCORERS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"msp": Msp, "energy": Energy, "max_logit": MaxLogit}
)
"""Every scorer by the name of its output in the graph."""


def build_scorer(name: str) -> nn.Module:
    """Return the scorer of this name, in eval mode.

    Raises
    ------
    RecipeError
        There is none; the message lists those there are.
    """
    if name not in SCORERS:
        raise RecipeError(f"unknown score `{name}`; known: {', '.join(SCORERS)}")
    return SCORERS[name]().eval()
