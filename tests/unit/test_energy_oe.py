"""Energy-bounded exposure: a second implementation, worked numbers, and margins that fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import logsumexp
from torch import Tensor, nn

import train.vision  # noqa: F401  (makes torchvision importable, which pytorch_ood needs)
from oodserve.errors import RecipeError
from tests.by_hand import Case, Net, draw, network
from train.methods.energy_oe import EnergyOe, EnergyOeSettings
from train.methods.losses import cross_entropy, energy, hinge_above, hinge_below
from train.networks.classifier import Classifier

LOGITS = np.random.default_rng(4).normal(2, 6, size=(12, 5))


def logits() -> Tensor:
    return torch.from_numpy(LOGITS.copy()).float().requires_grad_()


def model_of(n_classes: int) -> Classifier:
    return Classifier(nn.Flatten(), 4, n_classes)


@pytest.mark.parametrize(("m_in", "m_out"), [(-25.0, -7.0), (-12.0, -9.0), (-6.0, -1.0)])
def test_the_loss_is_that_of_pytorch_ood(m_in: float, m_out: float) -> None:
    from pytorch_ood.loss import EnergyRegularizedLoss

    labels = torch.tensor([0, 4, 2, 2])
    ours, theirs = logits(), logits()
    energies = energy(ours)
    hinges = hinge_above(energies[:4], margin=m_in) + hinge_below(energies[4:], margin=m_out)
    loss = cross_entropy(ours[:4], labels) + 0.3 * hinges
    assert float(hinges.detach()) > 0
    targets = torch.cat([labels, torch.full((8,), -1)])
    expected = EnergyRegularizedLoss(alpha=0.3, margin_in=m_in, margin_out=m_out)(theirs, targets)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward([loss, expected])
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_energy_is_minus_logsumexp() -> None:
    torch.testing.assert_close(
        energy(torch.from_numpy(LOGITS)), torch.from_numpy(-logsumexp(LOGITS, axis=1))
    )
    # Zero logits: -ln 90 = -4.4998.
    assert float(energy(torch.zeros(1, 90))) == pytest.approx(-4.4998, abs=1e-4)
    assert energy(torch.full((1, 3), 6e4, dtype=torch.float16)).dtype == torch.float32


def test_hinges_hand_computed() -> None:
    values = torch.tensor([-20.0, -12.0, -3.0])
    # Above -15 by 3 and 12: (0 + 9 + 144) / 3; below -5 by 15 and 7: (225 + 49 + 0) / 3.
    assert float(hinge_above(values, margin=-15)) == pytest.approx(51)
    assert float(hinge_below(values, margin=-5)) == pytest.approx(274 / 3)
    # In float16 the square of 300 would be infinite.
    far = torch.tensor([300.0], dtype=torch.float16)
    assert float(hinge_above(far, margin=0)) == 90000.0
    assert float(hinge_below(-far, margin=0)) == 90000.0


def test_nothing_beyond_the_margins_costs_anything() -> None:
    model, case = network(zscore=False), Case.draw()
    wide = EnergyOeSettings(m_in=50.0, m_out=100.0, weight=2.0)
    terms = EnergyOe(wide).objective(model, case.batch(), draw())
    assert float(terms["hinge_in"].detach()) == 0
    assert float(terms["hinge_out"].detach()) > 0
    narrow = EnergyOeSettings(m_in=-60.0, m_out=-50.0, weight=2.0)
    terms = EnergyOe(narrow).objective(model, case.batch(), draw())
    assert float(terms["hinge_in"].detach()) > 0
    assert float(terms["hinge_out"].detach()) == 0


def test_the_mean_energies_are_logged() -> None:
    model, case = network(zscore=False), Case.draw()
    terms = EnergyOe(EnergyOeSettings(forward_mode="separate")).objective(
        model, case.batch(), draw()
    )
    net = Net.of(model)
    for name, images in (("energy_in", case.images), ("energy_out", case.outliers)):
        expected = -logsumexp(net.logits(images), axis=1).mean()
        assert float(terms[name].detach()) == pytest.approx(expected)


def test_there_may_be_more_outliers_than_images() -> None:
    model, case = network(zscore=False).eval(), Case.draw()
    many = replace(case, outliers=np.tile(case.outliers, (3, 1, 1, 1)))
    settings = EnergyOeSettings(m_in=-1.5, m_out=1.0)
    once, thrice = (EnergyOe(settings).objective(model, c.batch(), draw()) for c in (case, many))
    torch.testing.assert_close(once["loss"], thrice["loss"])


@pytest.mark.parametrize(
    ("n_classes", "expected"), [(10, -5.0), (148, -5.0), (149, -np.log(149)), (1000, -np.log(1000))]
)
def test_the_default_margin_is_no_higher_than_the_energy_of_zero_logits(
    n_classes: int, expected: float
) -> None:
    method = EnergyOe(EnergyOeSettings())
    assert method.outlier_margin(n_classes) == expected
    method.attach(model_of(n_classes))
    flat = energy(torch.zeros(1, n_classes, dtype=torch.float64))
    assert float(hinge_below(flat, margin=method.outlier_margin(n_classes))) == pytest.approx(0)


def test_a_margin_above_the_energy_of_zero_logits_is_refused() -> None:
    method = EnergyOe(EnergyOeSettings(m_out=-5.0))
    method.attach(model_of(148))
    with pytest.raises(
        RecipeError,
        match=r"`method.m_out` = -5 is above -5\.004, the energy of 149 logits that are all 0.*"
        r"set it to -5\.1 or less, or leave it out",
    ):
        method.attach(model_of(149))


def test_margins_that_cross_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"`m_in` = -5 is not below `m_out` = -15"):
        EnergyOeSettings(m_in=-5.0, m_out=-15.0)
    with pytest.raises(ValidationError, match=r"`m_in` = -7 is not below `m_out` = -7"):
        EnergyOeSettings(m_in=-7.0, m_out=-7.0)
    with pytest.raises(
        RecipeError, match=r"`method.m_in` = -5 is not below the margin of outliers, -5; set a"
    ):
        EnergyOe(EnergyOeSettings(m_in=-5.0)).attach(model_of(10))


def test_attaching_adds_nothing_to_the_model() -> None:
    model = network(zscore=False)
    before = set(model.state_dict())
    EnergyOe(EnergyOeSettings()).attach(model)
    assert set(model.state_dict()) == before


def test_images_and_outliers_share_a_pass_unless_asked_otherwise() -> None:
    model, seen = network(zscore=False), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    for settings, passes in (
        (EnergyOeSettings(), 1),
        (EnergyOeSettings(forward_mode="separate"), 2),
    ):
        EnergyOe(settings).objective(model, Case.draw().batch(), draw())
        assert len(seen) == passes
        seen.clear()


def test_missing_outliers_are_refused() -> None:
    batch = replace(Case.draw().batch(), outliers=None)
    with pytest.raises(RecipeError, match="method `energy_oe` needs outlier images and the batch"):
        EnergyOe(EnergyOeSettings()).objective(network(zscore=False), batch, draw())
