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
    BATCH,
    CLASSES,
    HEIGHT,
    PIXELS,
    SEED,
    WIDTH,
    Array,
    Case,
    Net,
    distance,
    draw,
    hard,
    log_softmax,
    network,
    soft,
)
from train.methods.ascood import AscoodSettings
from train.methods.logit_mixoe import LogitMixoeSettings
from train.methods.mixoe import MixoeSettings
from train.methods.registry import MethodSettings, build_method
from train.methods.standard import StandardSettings
from train.networks.classifier import Classifier


def mixed(case: Case, settings: MixoeSettings | LogitMixoeSettings) -> tuple[Array, Array, Array]:
    """Return mixed images, each row's lambda as a column, and soft labels, from the same seed."""
    rng = np.random.default_rng(SEED)
    shared = settings.lam_per == "batch"
    draws = [
        rng.beta(settings.mix_alpha, settings.mix_alpha) for _ in range(1 if shared else BATCH)
    ]
    keep = np.empty((BATCH, 1, HEIGHT, WIDTH))
    if settings.operation == "mixup":
        keep[:] = np.reshape(draws, (-1, 1, 1, 1))
    else:
        masks = [mask_outside_box(rng, lam) for lam in draws]
        keep[:] = np.stack(masks)[:, None]
    lam = keep.mean(axis=(2, 3))
    labels = lam * np.eye(CLASSES)[case.labels] + (1 - lam) / CLASSES
    return keep * case.images + (1 - keep) * case.outliers, lam, labels


def mask_outside_box(rng: np.random.Generator, lam: float) -> Array:
    rows, columns = int(HEIGHT * np.sqrt(1 - lam)), int(WIDTH * np.sqrt(1 - lam))
    top = rng.integers(HEIGHT) - rows // 2
    left = rng.integers(WIDTH) - columns // 2
    mask = np.ones((HEIGHT, WIDTH))
    for row, column in product(range(HEIGHT), range(WIDTH)):
        if top <= row < top + rows and left <= column < left + columns:
            mask[row, column] = 0
    return mask


def standard(net: Net, case: Case, settings: StandardSettings) -> float:
    return hard(net.logits(case.images), case.labels)


def mixoe(net: Net, case: Case, settings: MixoeSettings) -> float:
    mix, lam, targets = mixed(case, settings)
    if settings.consistency != "none":
        logits = net.logits(np.concatenate([case.images, case.outliers, mix]))
        inside, outside, after = np.split(logits, 3)
    elif settings.forward_mode == "joint":
        inside, after = np.split(net.logits(np.concatenate([case.images, mix])), 2)
    else:
        inside, after = net.logits(case.images), net.logits(mix)
    loss = hard(inside, case.labels) + settings.mix_weight * soft(after, targets)
    if settings.consistency != "none":
        between = lam * inside + (1 - lam) * outside
        loss += settings.consistency_weight * distance(settings.consistency, between, after)
    return loss


def logit_mixoe(net: Net, case: Case, settings: LogitMixoeSettings) -> float:
    mix, lam, targets = mixed(case, settings)
    logits = net.logits(np.concatenate([case.images, case.outliers, mix]))
    inside, outside, after = np.split(logits, 3)
    between = lam * inside + (1 - lam) * outside
    loss = hard(inside, case.labels) + settings.mix_weight * soft(between, targets)
    if settings.consistency != "none":
        loss += settings.consistency_weight * distance(settings.consistency, between, after)
    return loss


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


def described(settings: MethodSettings) -> str:
    return "-".join(str(value) for value in settings.model_dump().values())


def reference(settings: MethodSettings) -> Callable[[Net, Case], float]:
    """Return the derivation of the settings' objective, for the draws of `SEED`."""
    if isinstance(settings, StandardSettings):
        return lambda net, case: standard(net, case, settings)
    if isinstance(settings, MixoeSettings):
        return lambda net, case: mixoe(net, case, settings)
    assert isinstance(settings, LogitMixoeSettings)
    return lambda net, case: logit_mixoe(net, case, settings)


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
    step = 1e-6
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
    "settings", [StandardSettings(), *MIXOE_CASES, *LOGIT_MIXOE_CASES], ids=described
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
