"""Each method's objective derived a second time: NumPy, float64, `tests.by_hand`'s network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch

from tests.by_hand import (
    BATCH,
    CLASSES,
    HEIGHT,
    SEED,
    WIDTH,
    Array,
    Case,
    Labels,
    Net,
    distance,
    hard,
    log_softmax,
    soft,
)
from train.methods.energy_oe import EnergyOeSettings
from train.methods.logit_mixing import LogitMixingSettings
from train.methods.logit_mixoe import LogitMixoeSettings
from train.methods.logitnorm import LogitnormSettings
from train.methods.mixing import CoefficientSettings
from train.methods.mixoe import MixoeSettings
from train.methods.mixup import MixupSettings
from train.methods.oe import OeSettings
from train.methods.registry import MethodSettings
from train.methods.standard import StandardSettings


def reference(settings: MethodSettings) -> Callable[[Net, Case], float]:
    """Return the derivation of the settings' objective, for the draws of `SEED`."""
    derivations: dict[str, Callable[[Net, Case, Any], float]] = {
        "standard": standard,
        "mixoe": mixoe,
        "logit_mixoe": logit_mixoe,
        "mixup": mixup,
        "logit_mixing": logit_mixing,
        "oe": oe,
        "energy_oe": energy_oe,
        "logitnorm": logitnorm,
    }
    derivation = derivations[settings.method_name]
    return lambda net, case: derivation(net, case, settings)


def mixed(case: Case, settings: MixoeSettings | LogitMixoeSettings) -> tuple[Array, Array, Array]:
    """Return mixed images, each row's lambda as a column, and soft labels, from the same seed."""
    keep, lam = kept(np.random.default_rng(SEED), settings, smaller_half=settings.lam_rule == "min")
    labels = lam * np.eye(CLASSES)[case.labels] + (1 - lam) / CLASSES
    return keep * case.images + (1 - keep) * case.outliers, lam, labels


def kept(
    rng: np.random.Generator, settings: CoefficientSettings, *, smaller_half: bool = False
) -> tuple[Array, Array]:
    """Return how much of each pixel of the first image is kept, and its mean as a column."""
    shapes = settings.mix_alpha, settings.mix_beta_shape or settings.mix_alpha
    draws = [rng.beta(*shapes) for _ in range(1 if settings.lam_per == "batch" else BATCH)]
    if smaller_half:
        draws = [lam if lam < 0.5 else 1 - lam for lam in draws]
    keep = np.empty((BATCH, 1, HEIGHT, WIDTH))
    if settings.operation == "mixup":
        keep[:] = np.reshape(draws, (-1, 1, 1, 1))
    else:
        keep[:] = np.stack([mask_outside_box(rng, lam) for lam in draws])[:, None]
    return keep, keep.mean(axis=(2, 3))


def paired(
    case: Case, settings: CoefficientSettings, rng: np.random.Generator | None = None
) -> tuple[Array, Array, Array, Labels]:
    """Return images mixed with their partners, lambda, soft labels and the partners' rows."""
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(SEED)).numpy()
    keep, lam = kept(rng or np.random.default_rng(SEED), settings)
    onehot = np.eye(CLASSES)[case.labels]
    images = keep * case.images + (1 - keep) * case.images[order]
    return images, lam, lam * onehot + (1 - lam) * onehot[order], order


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
    rng = np.random.default_rng(SEED)
    kept(rng, settings)  # the pairs are drawn after the mixture with outliers
    mix, lam, targets = mixed(case, settings)
    own, _, own_targets, _ = paired(case, settings.pair_settings, rng)
    parts = {"images": case.images}
    if settings.consistency != "none" or settings.outlier_weight:
        parts["outliers"] = case.outliers
    if settings.consistency != "none" or settings.mix_weight:
        parts["mixed"] = mix
    if settings.pair_weight:
        parts["pairs"] = own
    if settings.forward_mode == "joint":
        stacked = net.logits(np.concatenate(list(parts.values())))
        logits = dict(zip(parts, np.split(stacked, len(parts)), strict=True))
    else:
        logits = {name: net.logits(images) for name, images in parts.items()}
    loss = hard(logits["images"], case.labels)
    if settings.mix_weight:
        loss += settings.mix_weight * soft(logits["mixed"], targets)
    if settings.pair_weight:
        loss += settings.pair_weight * soft(logits["pairs"], own_targets)
    if settings.outlier_weight:
        loss -= settings.outlier_weight * float(log_softmax(logits["outliers"]).mean())
    if settings.consistency != "none":
        between = lam * logits["images"] + (1 - lam) * logits["outliers"]
        loss += settings.consistency_weight * distance(
            settings.consistency, between, logits["mixed"]
        )
    return loss


def mixup(net: Net, case: Case, settings: MixupSettings) -> float:
    images, _, targets, _ = paired(case, settings)
    return soft(net.logits(images), targets)


def logit_mixing(net: Net, case: Case, settings: LogitMixingSettings) -> float:
    images, lam, targets, order = paired(case, settings)
    own, after = np.split(net.logits(np.concatenate([case.images, images])), 2)
    between = lam * own + (1 - lam) * own[order]
    return (
        settings.clean_weight * hard(own, case.labels)
        + settings.mix_weight * soft(after, targets)
        + settings.consistency_weight * distance(settings.consistency, between, after)
    )


def exposed(net: Net, case: Case, mode: str) -> tuple[Array, Array]:
    if mode == "separate":
        return net.logits(case.images), net.logits(case.outliers)
    logits = net.logits(np.concatenate([case.images, case.outliers]))
    return logits[: len(case.images)], logits[len(case.images) :]


def oe(net: Net, case: Case, settings: OeSettings) -> float:
    inside, outside = exposed(net, case, settings.forward_mode)
    log_p = log_softmax(outside)
    hardest = np.argsort(-log_p.max(axis=1))[: max(1, round(settings.mining * len(log_p)))]
    return hard(inside, case.labels) - settings.weight * float(log_p[hardest].mean())


def energy_oe(net: Net, case: Case, settings: EnergyOeSettings) -> float:
    inside, outside = exposed(net, case, settings.forward_mode)
    m_out = -5.0 if settings.m_out is None else settings.m_out
    energy_in, energy_out = (-np.log(np.exp(z).sum(axis=1)) for z in (inside, outside))
    above = np.maximum(0, energy_in - settings.m_in) ** 2
    below = np.maximum(0, m_out - energy_out) ** 2
    return hard(inside, case.labels) + settings.weight * float(above.mean() + below.mean())


def logitnorm(net: Net, case: Case, settings: LogitnormSettings) -> float:
    logits = net.logits(case.images)
    lengths = np.sqrt((logits**2).sum(axis=1, keepdims=True)) + 1e-7
    return hard(logits / lengths / settings.temperature, case.labels)


def logit_mixoe(net: Net, case: Case, settings: LogitMixoeSettings) -> float:
    mix, lam, targets = mixed(case, settings)
    logits = net.logits(np.concatenate([case.images, case.outliers, mix]))
    inside, outside, after = np.split(logits, 3)
    between = lam * inside + (1 - lam) * outside
    loss = hard(inside, case.labels) + settings.mix_weight * soft(between, targets)
    if settings.consistency != "none":
        loss += settings.consistency_weight * distance(settings.consistency, between, after)
    return loss
