"""The simplest scorers by hand, and how scorers are named and set; see the contract tests, too."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from oodserve.errors import RecipeError
from train.scorers.energy import Energy, EnergySettings
from train.scorers.registry import build_scorer, knobs_of

NO_FEATURES = torch.zeros(1, 0)


def score(name: str, logits: list[float]) -> float:
    values: Tensor = build_scorer(name)(NO_FEATURES, torch.tensor([logits]))
    return float(values)


def test_hand_computed_scores() -> None:
    # exp: 1, 2, 4 of 7.
    logits = [0.0, math.log(2), math.log(4)]
    assert score("msp", logits) == pytest.approx(4 / 7, abs=1e-6)
    assert score("energy", logits) == pytest.approx(math.log(7), abs=1e-6)
    assert score("max_logit", logits) == pytest.approx(math.log(4), abs=1e-6)


def test_adding_a_constant_moves_all_but_the_softmax() -> None:
    logits = [1.0, -2.0, 0.5]
    shifted = [value + 3 for value in logits]
    assert score("msp", shifted) == pytest.approx(score("msp", logits), abs=1e-6)
    assert score("energy", shifted) == pytest.approx(score("energy", logits) + 3, abs=1e-5)
    assert score("max_logit", shifted) == pytest.approx(score("max_logit", logits) + 3, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 2.0, 100.0])
def test_energy_at_a_temperature(temperature: float) -> None:
    logits = torch.randn(5, 4, dtype=torch.float64)
    expected = temperature * torch.logsumexp(logits / temperature, dim=1)
    actual = Energy(EnergySettings(temperature=temperature))(NO_FEATURES, logits)
    torch.testing.assert_close(actual, expected.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(RecipeError, match=r"score `energy` have faults: `temperature` = "):
        build_scorer("energy", {"temperature": temperature})


def test_a_knob_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"score `gen` have faults: unknown key `sigma`"):
        build_scorer("gen", {"sigma": 1.0})
    with pytest.raises(RecipeError, match=r"score `msp` have faults: unknown key `temperature`"):
        build_scorer("msp", {"temperature": 1.0})


def test_knobs_are_known_by_name() -> None:
    assert knobs_of("gen") == ("gamma", "top")
    assert knobs_of("msp") == ()
    assert knobs_of("entropic") == ()


def test_an_unknown_score_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="unknown score `entropic`; known: msp, energy, max_logi"):
        build_scorer("entropic")
