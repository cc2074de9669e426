"""LogitNorm: a second implementation, its lower bound, and its blindness to length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import train.vision  # noqa: F401  (makes torchvision importable, which pytorch_ood needs)
from tests.by_hand import Case, Net, draw, network
from train.methods.logitnorm import Logitnorm, LogitnormSettings
from train.methods.losses import normalised_cross_entropy

LOGITS = torch.from_numpy(np.random.default_rng(5).normal(0, 3, size=(7, 5)))
LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 3])


@pytest.mark.parametrize("temperature", [0.01, 0.04, 1.0])
def test_the_loss_is_that_of_pytorch_ood(temperature: float) -> None:
    from pytorch_ood.loss import LogitNorm

    ours, theirs = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    loss = normalised_cross_entropy(ours, LABELS, temperature=temperature)
    expected = LogitNorm(t=temperature)(theirs, LABELS)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward([loss, expected])
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_hand_computed() -> None:
    # (3, 4) has length 5: (0.6, 0.8) / 0.5 = (1.2, 1.6), and log(1 + exp(1.2 - 1.6)) = 0.5130.
    loss = normalised_cross_entropy(torch.tensor([[3.0, 4.0]]), torch.tensor([1]), temperature=0.5)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-0.4)), rel=1e-6)


def test_longer_logits_change_nothing_and_their_gradient_is_across() -> None:
    values = LOGITS.clone().requires_grad_()
    loss = normalised_cross_entropy(values, LABELS, temperature=0.04)
    longer = normalised_cross_entropy(100 * LOGITS, LABELS, temperature=0.04)
    torch.testing.assert_close(loss.detach(), longer, rtol=1e-5, atol=1e-6)
    torch.autograd.backward(loss)
    assert values.grad is not None
    along = (values.grad * LOGITS).sum(dim=1) / LOGITS.norm(dim=1)
    assert float(along.abs().max()) < 1e-6
    assert float(values.grad.norm(dim=1).max()) > 1e-3


@pytest.mark.parametrize("n_classes", [2, 10])
def test_no_loss_is_below_the_bound(n_classes: int) -> None:
    ideal = torch.full((1, n_classes), -1.0, dtype=torch.float64)
    ideal[0, 0] = n_classes - 1
    label = torch.tensor([0])
    reached = float(normalised_cross_entropy(ideal, label, temperature=0.5))
    gap = np.sqrt(n_classes / (n_classes - 1)) / 0.5
    assert reached == pytest.approx(np.log1p((n_classes - 1) * np.exp(-gap)), rel=1e-6)
    noise = torch.randn(500, n_classes, generator=torch.Generator().manual_seed(0)).double()
    for scale in (0.01, 0.3, 3.0):
        near = ideal + scale * noise
        for row in near:
            assert float(normalised_cross_entropy(row[None], label, temperature=0.5)) >= reached


def test_zero_logits_have_a_finite_gradient() -> None:
    values = torch.zeros(2, 3, requires_grad=True)
    loss = normalised_cross_entropy(values, torch.tensor([0, 1]), temperature=0.04)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(np.log(3))
    assert values.grad is not None
    assert bool(torch.isfinite(values.grad).all())


def test_half_precision_is_widened() -> None:
    # The squares of these lengths do not fit float16.
    values = torch.tensor([[300.0, 400.0]], dtype=torch.float16)
    loss = normalised_cross_entropy(values, torch.tensor([1]), temperature=0.5)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(np.log1p(np.exp(-0.4)), rel=1e-5)


def test_the_mean_length_is_logged() -> None:
    model, case = network(zscore=False), Case.draw()
    terms = Logitnorm(LogitnormSettings()).objective(model, case.batch(), draw())
    lengths = np.linalg.norm(Net.of(model).logits(case.images), axis=1)
    assert float(terms["logit_length"].detach()) == pytest.approx(lengths.mean())
