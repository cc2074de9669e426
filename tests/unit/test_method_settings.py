"""The ``[method]`` table of a recipe: defaults, ranges, and what excludes what."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from train.methods.ascood import AscoodSettings
from train.methods.logit_mixoe import LogitMixoeSettings
from train.methods.mixoe import MixoeSettings
from train.methods.registry import METHODS, MethodSettings


def test_a_consistency_term_joins_the_passes() -> None:
    assert MixoeSettings().forward_mode == "separate"
    settings = MixoeSettings(consistency="l2")
    assert settings.forward_mode == "joint"
    assert MixoeSettings(**settings.model_dump()) == settings
    assert MixoeSettings.model_validate(settings) == settings


def test_separate_passes_refuse_a_consistency_term() -> None:
    with pytest.raises(ValidationError, match=r'"mse"` compares.*; set `forward_mode = "joint"`'):
        MixoeSettings(consistency="mse", forward_mode="separate")


def test_defaults_are_those_of_the_papers() -> None:
    assert LogitMixoeSettings().model_dump() == {
        "mix_alpha": 1.0,
        "mix_weight": 1.0,
        "operation": "mixup",
        "lam_per": "batch",
        "consistency": "l2",
        "consistency_weight": 1.0,
        "name": "logit_mixoe",
    }
    assert MixoeSettings().consistency == "none"
    assert AscoodSettings().model_dump() == {
        "name": "ascood",
        "weight": 1.0,
        "p_inv": 0.1,
        "alpha_max": 0.1,
        "alpha_min": 0.1,
    }


def test_the_recipe_knows_every_registered_method_and_no_other() -> None:
    union, *_ = get_args(MethodSettings)
    registered = {registration.settings for registration in METHODS.values()}
    assert set(get_args(union)) == registered


def test_what_each_method_needs() -> None:
    needs = {
        name: (m.settings.needs_outliers, m.settings.needs_zscore) for name, m in METHODS.items()
    }
    assert needs == {
        "standard": (False, False),
        "mixoe": (True, False),
        "logit_mixoe": (True, False),
        "ascood": (False, True),
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "mixoe", "mix_alpha": 0}, "greater than 0"),
        ({"name": "mixoe", "mix_weight": -1}, "greater than or equal to 0"),
        ({"name": "mixoe", "mix_alpha": float("nan")}, "finite number"),
        ({"name": "logit_mixoe", "consistency_weight": -0.1}, "greater than or equal to 0"),
        ({"name": "logit_mixoe", "operation": "paste"}, "'mixup' or 'cutmix'"),
        ({"name": "logit_mixoe", "consistency": "l1"}, "'none', 'l2' or 'mse'"),
        ({"name": "logit_mixoe", "forward_mode": "separate"}, "Extra inputs"),
        ({"name": "ascood", "p_inv": 0}, "greater than 0"),
        ({"name": "ascood", "p_inv": 1.1}, "less than or equal to 1"),
        ({"name": "ascood", "alpha_min": 0}, "greater than 0"),
        ({"name": "ascood", "alpha_max": 1, "alpha_min": 2}, "the strength falls over the epochs"),
        ({"name": "standard", "mix_alpha": 1}, "Extra inputs"),
        ({"name": "mixeo"}, "'standard', 'mixoe', 'logit_mixoe', 'ascood'"),
    ],
)
def test_settings_out_of_range_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(MethodSettings).validate_python(table)
