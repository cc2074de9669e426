"""Every objective against a second derivation of it: NumPy, float64, a small network by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.by_hand import (
    CLASSES,
    PIXELS,
    Array,
    Case,
    Net,
    draw,
    hard,
    log_softmax,
    network,
)
from tests.derivations import reference
from train.methods.ascood import AscoodSettings
from train.methods.energy_oe import EnergyOeSettings
from train.methods.logit_mixing import LogitMixingSettings
from train.methods.logit_mixoe import LogitMixoeSettings
from train.methods.logitnorm import LogitnormSettings
from train.methods.mixoe import MixoeSettings
from train.methods.mixup import MixupSettings
from train.methods.oe import OeSettings
from train.methods.registry import MethodSettings, build_method
from train.methods.standard import StandardSettings
from train.networks.classifier import Classifier


def outliers_by_gradient(net: Net, case: Case, settings: AscoodSettings, alpha: float) -> Array:
    made = case.images.copy()
    for row, gradient in enumerate(net.true_class_gradient(case.images, case.labels)):
        flat = gradient.ravel()
        kept = np.argsort(-np.abs(flat))[: int(PIXELS * settings.p_inv)]
        for entry in kept:
            made[row].flat[entry] += alpha * flat[entry]
    return made


def on_outliers(net: Net, case: Case, outliers: Array, weight: float) -> float:
    inside, outside = np.split(net.logits(np.concatenate([case.images, outliers])), 2)
    divergence = -np.log(CLASSES) - log_softmax(outside).mean(axis=1)
    return hard(inside, case.labels) + weight * float(divergence.mean())


MIXOE_CASES = [
    MixoeSettings(
        mix_alpha=0.7, mix_weight=2.5, operation=operation, lam_per=lam_per, forward_mode=mode
    )
    for operation, lam_per, mode in product(
        ("mixup", "cutmix"), ("batch", "sample"), ("separate", "joint")
    )
] + [
    MixoeSettings(
        mix_alpha=1.5,
        mix_weight=0.5,
        operation=operation,
        lam_per=lam_per,
        forward_mode="joint",
        consistency=kind,
        consistency_weight=0.3,
    )
    for operation, lam_per, kind in product(("mixup", "cutmix"), ("batch", "sample"), ("l2", "mse"))
]
LOGIT_MIXOE_CASES = [
    LogitMixoeSettings(
        mix_alpha=1.0,
        mix_weight=5.0,
        operation=operation,
        lam_per=lam_per,
        consistency=kind,
        consistency_weight=0.7,
    )
    for operation, lam_per, kind in product(
        ("mixup", "cutmix"), ("batch", "sample"), ("none", "l2", "mse")
    )
]


FULL_MIXOE_CASES = [
    MixoeSettings(
        mix_alpha=0.4,
        mix_beta_shape=shape,
        mix_weight=mix_weight,
        operation=operation,
        lam_per="sample",
        lam_rule="min",
        forward_mode=mode,
        pair_weight=pair_weight,
        pair_alpha=2.0,
        outlier_weight=outlier_weight,
    )
    for operation, mode, (shape, mix_weight, pair_weight, outlier_weight) in product(
        ("mixup", "cutmix"),
        ("separate", "joint"),
        ((1.0, 5.0, 0.6, 0.4), (None, 0.0, 0.7, 0.0), (None, 0.0, 0.0, 0.5), (3.0, 1.0, 0.0, 2.0)),
    )
] + [
    MixoeSettings(mix_weight=0.0, pair_weight=1.5, outlier_weight=0.5, consistency="l2"),
]

MIXUP_CASES = [
    MixupSettings(mix_alpha=0.8, mix_beta_shape=shape, operation=operation, lam_per=lam_per)
    for operation, lam_per, shape in product(("mixup", "cutmix"), ("batch", "sample"), (None, 2.0))
]

LOGIT_MIXING_CASES = [
    LogitMixingSettings(
        mix_weight=1.3,
        clean_weight=0.4,
        operation=operation,
        lam_per=lam_per,
        consistency=kind,
        consistency_weight=0.7,
    )
    for operation, lam_per, kind in product(("mixup", "cutmix"), ("batch", "sample"), ("l2", "mse"))
]

EXPOSURE_CASES: list[OeSettings | EnergyOeSettings | LogitnormSettings] = [
    *(
        OeSettings(weight=weight, mining=mining, forward_mode=mode)
        for weight, mining, mode in product((0.5, 5.0), (1.0, 0.5, 0.01), ("joint", "separate"))
    ),
    # Margins that all, some and none of the energies are beyond: they lie from about -3 to 0.
    *(
        EnergyOeSettings(weight=0.1, m_in=m_in, m_out=m_out, forward_mode=mode)
        for (m_in, m_out), mode in product(
            ((-15.0, None), (-1.8, -1.3), (-1.5, 1.0), (-9.0, -8.0)), ("joint", "separate")
        )
    ),
    *(LogitnormSettings(temperature=temperature) for temperature in (0.04, 1.0)),
]


def described(settings: MethodSettings) -> str:
    return "-".join(str(value) for value in settings.model_dump().values())


def gradient_along(model: Classifier, loss: Tensor, directions: dict[str, Array]) -> float:
    names = list(directions)
    gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in names])
    return sum(
        float((gradient * torch.from_numpy(directions[name])).sum())
        for name, gradient in zip(names, gradients, strict=True)
    )


def assert_slope(model: Classifier, loss: Tensor, expected: Callable[[Net], float]) -> None:
    """Assert that autograd and a central difference agree along a random direction."""
    net = Net.of(model)
    rng = np.random.default_rng(5)
    directions = {
        name: rng.normal(size=tuple(parameter.shape))
        for name, parameter in model.named_parameters()
    }
    step = 2e-7
    ahead, behind = (
        expected(
            replace(
                net,
                values=net.values
                | {name: net.values[name] + side * step * directions[name] for name in directions},
            )
        )
        for side in (1, -1)
    )
    slope = (ahead - behind) / (2 * step)
    assert gradient_along(model, loss, directions) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        StandardSettings(),
        *MIXOE_CASES,
        *FULL_MIXOE_CASES,
        *LOGIT_MIXOE_CASES,
        *MIXUP_CASES,
        *LOGIT_MIXING_CASES,
        *EXPOSURE_CASES,
    ],
    ids=described,
)
def test_objective_equals_its_derivation_in_value_and_slope(settings: MethodSettings) -> None:
    model, case, expected = network(zscore=False), Case.draw(), reference(settings)
    net = Net.of(model)
    terms = build_method(settings).objective(model, case.batch(), draw())
    assert float(terms["loss"].detach()) == pytest.approx(expected(net, case), abs=1e-6)
    assert_slope(model, terms["loss"], lambda moved: expected(moved, case))


@pytest.mark.parametrize("zscore", [True, False])
@pytest.mark.parametrize(("p_inv", "epoch"), [(0.1, 1), (0.25, 3), (1.0, 4)])
def test_ascood_equals_its_derivation_with_outliers_held_constant(
    zscore: bool, p_inv: float, epoch: int
) -> None:
    settings = AscoodSettings(weight=1.7, p_inv=p_inv, alpha_max=9.0, alpha_min=2.0)
    model, case = network(zscore=zscore), Case.draw()
    net = Net.of(model)
    alpha = 2.0 + 7.0 * (1 - epoch / 4)
    outliers = outliers_by_gradient(net, case, settings, alpha)
    terms = build_method(settings).objective(model, case.batch(), draw(epoch=epoch, epochs=4))
    expected = on_outliers(net, case, outliers, 1.7)
    assert float(terms["loss"].detach()) == pytest.approx(expected, abs=1e-6)
    assert_slope(model, terms["loss"], lambda moved: on_outliers(moved, case, outliers, 1.7))
    change = np.abs(outliers - case.images)
    assert float(terms["perturbation_mean"]) == pytest.approx(change.mean())
    assert float(terms["perturbation_max"]) == pytest.approx(change.max())


@pytest.mark.parametrize(
    "settings", [MIXOE_CASES[0], MIXOE_CASES[-1], LOGIT_MIXOE_CASES[-1]], ids=described
)
def test_the_loss_is_the_weighted_sum_of_the_logged_terms(
    settings: MixoeSettings | LogitMixoeSettings,
) -> None:
    terms = build_method(settings).objective(network(zscore=False), Case.draw().batch(), draw())
    expected = terms["cross_entropy"] + settings.mix_weight * terms["mixed"]
    if settings.consistency != "none":
        expected = expected + settings.consistency_weight * terms["consistency"]
    torch.testing.assert_close(terms["loss"], expected)
    assert ("consistency" in terms) == (settings.consistency != "none")
