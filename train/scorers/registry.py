"""Which scores there are. A new one is a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from oodserve.errors import RecipeError
from oodserve.schema import explain
from train.scorers.ash import AshB, AshBSettings, AshS, AshSSettings
from train.scorers.dice import Dice, DiceSettings
from train.scorers.energy import Energy, EnergySettings
from train.scorers.entropy import Entropy
from train.scorers.fdbd import Fdbd
from train.scorers.gaussian import GaussianSettings
from train.scorers.gen import Gen, GenSettings
from train.scorers.gradient.gradnorm import GradNorm, GradNormSettings
from train.scorers.gradient.iodin import IOdin, IOdinSettings
from train.scorers.gradient.odin import Odin, OdinSettings
from train.scorers.gram import Gram, GramSettings
from train.scorers.ice import Ice
from train.scorers.kl_matching import KlMatching
from train.scorers.knn import Knn, KnnSettings
from train.scorers.logit_norm import LogitNorm
from train.scorers.mahalanobis import Mahalanobis
from train.scorers.mahalanobis_layers import MahalanobisLayers
from train.scorers.max_logit import MaxLogit
from train.scorers.msp import Msp
from train.scorers.nci import Nci, NciSettings
from train.scorers.nnguide import NNGuide, NNGuideSettings
from train.scorers.odin_temperature import OdinTemperature, OdinTemperatureSettings
from train.scorers.react import React, ReactSettings
from train.scorers.relation import Relation, RelationSettings
from train.scorers.relative_mahalanobis import RelativeMahalanobis
from train.scorers.rotation import Rotation
from train.scorers.scale import Scale, ScaleSettings
from train.scorers.scorer import Scorer, ScorerSettings
from train.scorers.she import She
from train.scorers.temperature import Temperature
from train.scorers.vim import Vim, VimSettings


@dataclass(frozen=True)
class Registration:
    """A score's class and, where it has knobs, their settings."""

    build: type[Scorer]
    settings: type[ScorerSettings] = ScorerSettings


SCORERS: Mapping[str, Registration] = MappingProxyType(
    {
        "msp": Registration(Msp),
        "energy": Registration(Energy, EnergySettings),
        "max_logit": Registration(MaxLogit),
        "logit_norm": Registration(LogitNorm),
        "entropy": Registration(Entropy),
        "gen": Registration(Gen, GenSettings),
        "odin_temperature": Registration(OdinTemperature, OdinTemperatureSettings),
        "temperature": Registration(Temperature),
        "kl_matching": Registration(KlMatching),
        "react": Registration(React, ReactSettings),
        "ash_b": Registration(AshB, AshBSettings),
        "ash_s": Registration(AshS, AshSSettings),
        "scale": Registration(Scale, ScaleSettings),
        "dice": Registration(Dice, DiceSettings),
        "she": Registration(She),
        "nnguide": Registration(NNGuide, NNGuideSettings),
        "fdbd": Registration(Fdbd),
        "nci": Registration(Nci, NciSettings),
        "relation": Registration(Relation, RelationSettings),
        "ice": Registration(Ice),
        "rotation": Registration(Rotation),
        "mahalanobis": Registration(Mahalanobis, GaussianSettings),
        "relative_mahalanobis": Registration(RelativeMahalanobis, GaussianSettings),
        "mahalanobis_layers": Registration(MahalanobisLayers, GaussianSettings),
        "gram": Registration(Gram, GramSettings),
        "vim": Registration(Vim, VimSettings),
        "knn": Registration(Knn, KnnSettings),
        "gradnorm": Registration(GradNorm, GradNormSettings),
        "odin": Registration(Odin, OdinSettings),
        "iodin": Registration(IOdin, IOdinSettings),
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
