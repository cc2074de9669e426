"""Which scores there are. A new one is a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from oodserve.errors import RecipeError
from oodserve.schema import explain
from train.scorers.energy import Energy, EnergySettings
from train.scorers.max_logit import MaxLogit
from train.scorers.msp import Msp
from train.scorers.scorer import Scorer, ScorerSettings


@dataclass(frozen=True)
class Registration:
    """A score's class and, where it has knobs, their settings."""

    build: Callable[..., Scorer]
    settings: type[ScorerSettings] = ScorerSettings


SCORERS: Mapping[str, Registration] = MappingProxyType(
    {
        "msp": Registration(Msp),
        "energy": Registration(Energy, EnergySettings),
        "max_logit": Registration(MaxLogit),
    }
)
"""Every scorer that can be exported, by the name of its output in the graph."""


def knobs_of(name: str) -> tuple[str, ...]:
    """Return the names of a score's knobs; none for an unknown score."""
    return tuple(SCORERS[name].settings.model_fields) if name in SCORERS else ()


def build_scorer(name: str, knobs: Mapping[str, Any] | None = None) -> Scorer:
    """Return the scorer of this name, in eval mode and not fitted.

    Parameters
    ----------
    name : str
    knobs : mapping of str to value, optional
        As in a recipe's ``[scorers.NAME]``; defaults for what is not stated.

    Raises
    ------
    RecipeError
        There is no such score (the message lists those there are) or no such knob.
    """
    if name not in SCORERS:
        raise RecipeError(f"unknown score `{name}`; known: {', '.join(SCORERS)}")
    registration = SCORERS[name]
    try:
        settings = registration.settings.model_validate(knobs or {})
    except ValidationError as error:
        raise RecipeError(f"the knobs of score `{name}` have faults: {explain(error)}") from error
    scorer = registration.build(settings) if knobs_of(name) else registration.build()
    return scorer.eval()


def _complete(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the tables with every default written out."""
    complete = {}
    for name, knobs in tables.items():
        if name not in SCORERS:
            raise ValueError(f"`{name}` is no score; known: {', '.join(SCORERS)}")
        if not knobs_of(name):
            raise ValueError(f"score `{name}` has no knobs")
        settings = SCORERS[name].settings.model_validate(knobs)
        complete[name] = settings.model_dump(mode="json")
    return complete


ScorerTables = Annotated[dict[str, dict[str, Any]], AfterValidator(_complete)]
"""A recipe's ``[scorers.NAME]`` tables."""
