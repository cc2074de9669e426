"""MixOE and Logit MixOE: oracles that need no derivation, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from oodserve.errors import RecipeError
from tests.by_hand import (
    BATCH,
    CLASSES,
    FEATURES,
    PIXELS,
    Array,
    Case,
    Net,
    draw,
    hard,
    log_softmax,
    network,
)
from train.methods.logit_mixoe import LogitMixoe, LogitMixoeSettings
from train.methods.losses import consistency
from train.methods.mixing import (
    MixingSettings,
    Mixture,
    Operation,
    draw_mixture,
    mix_images,
    mix_rows,
    soft_targets,
)
from train.methods.mixoe import Mixoe, MixoeSettings
from train.methods.oe import Oe, OeSettings
from train.methods.passes import joint_logits, separate_logits
from train.methods.registry import build_method
from train.networks.classifier import Classifier


def constant(lam: float) -> Mixture:
    return Mixture(lam=np.full(BATCH, lam))


def cross_entropy_of(model: Classifier, case: Case) -> float:
    return hard(Net.of(model).logits(case.images, train=False), case.labels)


def test_mixoe_that_keeps_everything_is_weighted_cross_entropy() -> None:
    model, case = network(zscore=False).eval(), Case.draw()
    terms = Mixoe(MixoeSettings(mix_weight=3.0)).terms(model, case.batch(), constant(1.0))
    assert float(terms["loss"].detach()) == pytest.approx(4 * cross_entropy_of(model, case))


def test_mixoe_that_keeps_nothing_is_outlier_exposure() -> None:
    model, case = network(zscore=False).eval(), Case.draw()
    terms = Mixoe(MixoeSettings(mix_weight=3.0)).terms(model, case.batch(), constant(0.0))
    outside = log_softmax(Net.of(model).logits(case.outliers, train=False))
    expected = cross_entropy_of(model, case) - 3.0 * outside.mean()
    assert float(terms["loss"].detach()) == pytest.approx(expected)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_logit_mixoe_at_the_ends_equals_mixoe(lam: float) -> None:
    model, case = network(zscore=False), Case.draw()
    ours = LogitMixoe(LogitMixoeSettings(mix_weight=2.0)).terms(model, case.batch(), constant(lam))
    settings = MixoeSettings(mix_weight=2.0, consistency="l2")
    other = Mixoe(settings).terms(model, case.batch(), constant(lam))
    torch.testing.assert_close(ours["loss"], other["loss"])
    # The mixed batch is then one of the other two, so their logits are the same.
    assert float(ours["consistency"].detach()) < 1e-12


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_gradients_at_the_ends_are_finite(lam: float) -> None:
    model, case = network(zscore=False), Case.draw()
    terms = LogitMixoe(LogitMixoeSettings()).terms(model, case.batch(), constant(lam))
    torch.autograd.backward(terms["loss"])
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert bool(torch.isfinite(parameter.grad).all())


@pytest.mark.parametrize("lam", [np.full(BATCH, 0.3), np.linspace(0, 1, BATCH)])
def test_consistency_of_a_linear_network_vanishes_in_a_joint_pass_only(lam: Array) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, FEATURES), nn.BatchNorm1d(FEATURES))
    model, case = Classifier(backbone, FEATURES, CLASSES).double().train(), Case.draw()
    mixture, batch = Mixture(lam=lam), case.batch()
    assert batch.outliers is not None
    joint = LogitMixoe(LogitMixoeSettings()).terms(model, batch, mixture)["consistency"]
    assert float(joint.detach()) < 1e-12
    middle = mix_images(batch.images, batch.outliers, mixture)
    inside, outside, after = separate_logits(model, batch.images, batch.outliers, middle)
    apart = consistency(mix_rows(inside, outside, mixture), after, distance="l2")
    assert float(apart.detach()) > 0.1
    untied = replace(mixture, lam=1 - lam)
    inside, outside, after = joint_logits(model, batch.images, batch.outliers, middle)
    loose = consistency(mix_rows(inside, outside, untied), after, distance="l2")
    assert float(loose.detach()) > 0.1


def test_soft_targets_hand_computed() -> None:
    targets = soft_targets(
        torch.tensor([1, 0]), Mixture(lam=np.array([0.7, 0.0])), like=torch.zeros(2, 4)
    )
    # 0.3 / 4 = 0.075 everywhere, and 0.7 more for the class.
    torch.testing.assert_close(targets[0], torch.tensor([0.075, 0.775, 0.075, 0.075]))
    torch.testing.assert_close(targets[1], torch.full((4,), 0.25))


def test_the_outliers_never_pass_plain_mixoe() -> None:
    model, seen = network(zscore=False), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    batch = Case.draw().batch()
    Mixoe(MixoeSettings()).objective(model, batch, draw())
    Mixoe(MixoeSettings(forward_mode="joint")).objective(model, batch, draw())
    Mixoe(MixoeSettings(consistency="l2")).objective(model, batch, draw())
    LogitMixoe(LogitMixoeSettings(consistency="none")).objective(model, batch, draw())
    assert seen == [BATCH, BATCH, 2 * BATCH, 3 * BATCH, 3 * BATCH]


def test_a_term_of_no_weight_costs_no_pass() -> None:
    model, seen = network(zscore=False), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    batch = Case.draw().batch()
    for on, passes in (
        ({}, 2),
        ({"mix_weight": 0}, 1),
        ({"pair_weight": 1}, 3),
        ({"outlier_weight": 1, "mix_weight": 0}, 2),
        ({"pair_weight": 1, "outlier_weight": 1}, 4),
    ):
        for mode, counts in (("separate", [BATCH] * passes), ("joint", [BATCH * passes])):
            method = Mixoe(MixoeSettings.model_validate({"forward_mode": mode, **on}))
            terms = method.objective(model, batch, draw())
            assert seen == counts
            seen.clear()
            assert len(terms) == 1 + passes


def test_the_preprints_objective_without_mixing_with_outliers_is_outlier_exposure() -> None:
    model, batch = network(zscore=False), Case.draw().batch()
    for mode in ("joint", "separate"):
        ours = Mixoe(
            MixoeSettings.model_validate(
                {"mix_weight": 0, "outlier_weight": 0.7, "forward_mode": mode}
            )
        )
        theirs = Oe(OeSettings.model_validate({"weight": 0.7, "forward_mode": mode}))
        torch.testing.assert_close(
            ours.objective(model, batch, draw()), theirs.objective(model, batch, draw())
        )


def test_further_terms_leave_the_mixture_with_outliers_as_it_was() -> None:
    model, batch = network(zscore=False), Case.draw().batch()
    plain = Mixoe(MixoeSettings()).objective(model, batch, draw())
    full = Mixoe(MixoeSettings(pair_weight=2.0, outlier_weight=3.0)).objective(model, batch, draw())
    assert torch.equal(plain["mixed"], full["mixed"])
    torch.testing.assert_close(
        full["loss"], plain["loss"] + 2 * full["pairs"] + 3 * full["uniform"]
    )


def test_the_pairs_have_a_distribution_of_their_own() -> None:
    settings = MixoeSettings(
        mix_alpha=0.1, mix_beta_shape=1.0, lam_rule="min", pair_alpha=3.0, lam_per="sample"
    )
    pairs = settings.pair_settings
    assert (pairs.mix_alpha, pairs.mix_beta_shape, pairs.lam_per) == (3.0, None, "sample")
    lam = pairs.coefficients(np.random.default_rng(0), size=5000)
    # Beta(3, 3): mean 1/2, variance 1 / (4 * 7); the rule of the outliers does not apply.
    assert lam.mean() == pytest.approx(0.5, abs=0.01)
    assert lam.var() == pytest.approx(1 / 28, abs=0.002)
    assert float(lam.max()) > 0.9


@pytest.mark.parametrize("operation", ["mixup", "cutmix"])
def test_the_min_rule_lets_the_outlier_outweigh_the_image(operation: Operation) -> None:
    drawn, halved = (
        draw_mixture(
            np.random.default_rng(1),
            (4000, 3, 40, 40),
            settings=MixingSettings(
                mix_alpha=0.4, operation=operation, lam_per="sample", lam_rule=rule
            ),
        ).lam
        for rule in ("as_drawn", "min")
    )
    if operation == "mixup":
        np.testing.assert_array_equal(halved, np.minimum(drawn, 1 - drawn))
        assert float(halved.max()) <= 0.5
    assert halved.mean() < drawn.mean() - 0.1


@pytest.mark.parametrize("settings", [MixoeSettings(), LogitMixoeSettings()], ids=lambda s: s.name)
def test_missing_outliers_are_refused(settings: MixoeSettings | LogitMixoeSettings) -> None:
    batch = replace(Case.draw().batch(), outliers=None)
    with pytest.raises(
        RecipeError,
        match=f"method `{settings.name}` needs outlier images and the batch has none; set",
    ):
        build_method(settings).objective(network(zscore=False), batch, draw())


@pytest.mark.parametrize("settings", [MixoeSettings(), LogitMixoeSettings()], ids=lambda s: s.name)
def test_another_number_of_outliers_is_refused(
    settings: MixoeSettings | LogitMixoeSettings,
) -> None:
    batch = Case.draw().batch()
    assert batch.outliers is not None
    with pytest.raises(
        RecipeError,
        match=r"5 images and 4 outliers; set `finetune.outlier_batch_size` to 0",
    ):
        build_method(settings).objective(
            network(zscore=False), replace(batch, outliers=batch.outliers[:4]), draw()
        )
