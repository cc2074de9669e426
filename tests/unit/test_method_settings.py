"""The ``[method]`` table of a recipe: defaults, ranges, and what excludes what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError
from torch import nn

from train.methods.mixoe import MixoeSettings
from train.methods.registry import METHODS, MethodSettings, build_method
from train.networks.classifier import Classifier
from train.recipes import load_recipe

PRESETS = Path(__file__).parents[2] / "train" / "presets"


def test_a_consistency_term_joins_the_passes() -> None:
    assert MixoeSettings().forward_mode == "separate"
    settings = MixoeSettings(consistency="l2")
    assert settings.forward_mode == "joint"
    assert MixoeSettings(**settings.model_dump()) == settings
    assert MixoeSettings.model_validate(settings) == settings


def test_separate_passes_refuse_a_consistency_term() -> None:
    with pytest.raises(ValidationError, match=r'"mse"` compares.*; set `forward_mode = "joint"`'):
        MixoeSettings(consistency="mse", forward_mode="separate")


DEFAULTS: dict[str, dict[str, object]] = {
    "logitnorm": {"temperature": 0.04},
    "oe": {"weight": 0.5, "mining": 1.0, "forward_mode": "joint"},
    "energy_oe": {"weight": 0.1, "m_in": -15.0, "m_out": None, "forward_mode": "joint"},
    "mixup": {
        "mix_alpha": 1.0,
        "mix_beta_shape": None,
        "operation": "mixup",
        "lam_per": "batch",
    },
    "logit_mixing": {
        "mix_alpha": 3.0,
        "mix_beta_shape": None,
        "operation": "mixup",
        "lam_per": "batch",
        "mix_weight": 1.0,
        "clean_weight": 1.0,
        "consistency": "mse",
        "consistency_weight": 1.0,
    },
    "logit_mixoe": {
        "mix_alpha": 1.0,
        "mix_beta_shape": None,
        "mix_weight": 1.0,
        "operation": "mixup",
        "lam_per": "batch",
        "lam_rule": "as_drawn",
        "consistency": "l2",
        "consistency_weight": 1.0,
    },
    "mixoe": {
        "mix_alpha": 1.0,
        "mix_beta_shape": None,
        "mix_weight": 1.0,
        "operation": "mixup",
        "lam_per": "batch",
        "lam_rule": "as_drawn",
        "consistency": "none",
        "consistency_weight": 1.0,
        "forward_mode": "separate",
        "pair_weight": 0.0,
        "pair_alpha": 1.0,
        "outlier_weight": 0.0,
    },
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_papers(name: str) -> None:
    assert METHODS[name].settings().model_dump() == {"name": name, **DEFAULTS[name]}


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"standard"}))
def test_each_method_names_its_source(name: str) -> None:
    assert re.search(r", \d{4} \((arXiv \d{4}\.\d{5}|[A-Z])", METHODS[name].settings.source)


def test_the_recipe_knows_every_registered_method_and_no_other() -> None:
    union, *_ = get_args(MethodSettings)
    registered = {registration.settings for registration in METHODS.values()}
    assert set(get_args(union)) == registered


@pytest.mark.parametrize(
    ("name", "needs", "pairs"),
    [
        ("standard", False, False),
        ("logitnorm", False, False),
        ("mixup", False, False),
        ("logit_mixing", False, False),
        ("oe", True, False),
        ("energy_oe", True, False),
        ("mixoe", True, True),
        ("logit_mixoe", True, True),
        ("ascood", False, False),
    ],
)
def test_what_each_method_needs(name: str, needs: bool, pairs: bool) -> None:
    settings = METHODS[name].settings
    assert (settings.needs_outliers, settings.pairs_outliers) == (needs, pairs)


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
        ({"name": "logitnorm", "temperature": 0}, "greater than 0"),
        ({"name": "oe", "weight": -1}, "greater than or equal to 0"),
        ({"name": "oe", "mining": 0}, "greater than 0"),
        ({"name": "oe", "mining": 1.5}, "less than or equal to 1"),
        ({"name": "oe", "forward_mode": "both"}, "'joint' or 'separate'"),
        ({"name": "energy_oe", "m_in": -5, "m_out": -15}, "is not below `m_out`"),
        ({"name": "mixup", "mix_beta_shape": 0}, "greater than 0"),
        ({"name": "mixup", "mix_weight": 1}, "Extra inputs"),
        ({"name": "mixup", "lam_rule": "min"}, "Extra inputs"),
        ({"name": "logit_mixing", "consistency": "none"}, "'l2' or 'mse'"),
        ({"name": "mixoe", "pair_alpha": 0}, "greater than 0"),
        ({"name": "mixoe", "outlier_weight": -1}, "greater than or equal to 0"),
        ({"name": "mixoe", "lam_rule": "max"}, "'as_drawn' or 'min'"),
        ({"name": "mixeo"}, ", ".join(f"'{name}'" for name in METHODS)),
    ],
)
def test_settings_out_of_range_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(MethodSettings).validate_python(table)


PUBLISHED: dict[str, dict[str, object]] = {
    "fgvc_oe": {"weight": 5.0},
    "fgvc_energy_oe": {"m_in": -15.0, "m_out": -5.0, "weight": 0.1},
    "fgvc_mixoe_preprint": {"mix_alpha": 1.0, "mix_weight": 5.0, "lam_rule": "as_drawn"},
    "cars_mixoe_cutmix": {"mix_alpha": 2.0, "mix_weight": 5.0, "operation": "cutmix"},
    "cars_oe": {"weight": 1.0},
    "cars_energy_oe": {"m_in": -13.0, "m_out": -6.0, "weight": 0.1},
    "imagenet50_mixoe": {"mix_alpha": 0.4, "mix_weight": 5.0, "lam_rule": "min"},
    "imagenet50_oe": {"weight": 0.5},
    "imagenet50_energy_oe": {"m_in": -27.0, "m_out": -5.0, "weight": 0.05},
    "cifar10_oe": {"weight": 0.5},
    "cifar10_energy_oe": {"m_in": -23.0, "m_out": -5.0, "weight": 0.1},
    "cifar100_energy_oe": {"m_in": -27.0, "m_out": -5.0, "weight": 0.1},
    "cifar10_mixoe_openood": {
        "mix_alpha": 0.1,
        "mix_beta_shape": 1.0,
        "mix_weight": 1.0,
        "operation": "cutmix",
    },
    "cifar10_logitnorm": {"temperature": 0.04},
    "cifar10_mixup": {"mix_alpha": 1.0},
    "cifar100_logit_mixing": {"mix_alpha": 3.0, "consistency_weight": 1.0, "consistency": "mse"},
}
"""What the papers and their authors' code state of each preset's method."""

CLASSES = {"fgvc": 100, "cars": 150, "imagenet50": 50, "cifar10": 10, "cifar100": 100}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_state_the_published_settings(name: str) -> None:
    recipe = load_recipe(PRESETS / f"{name}.toml")
    stated = recipe.method.model_dump()
    assert {key: stated[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    # The margins fit the data's number of classes.
    model = Classifier(nn.Flatten(), 4, CLASSES[name.split("_")[0]])
    build_method(recipe.method).attach(model)


@pytest.mark.parametrize(
    ("prefix", "outliers"), [("fgvc", 0), ("cars", 64), ("imagenet50", 512), ("cifar10", 256)]
)
def test_presets_state_how_many_outliers_a_step_sees(prefix: str, outliers: int) -> None:
    for method in ("oe", "energy_oe"):
        recipe = load_recipe(PRESETS / f"{prefix}_{method}.toml")
        assert recipe.finetune.outlier_batch_size == outliers
        assert (recipe.finetune.epochs, recipe.finetune.learning_rate) == (10, 1e-3)
