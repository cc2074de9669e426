"""Outlier exposure: a second implementation, worked numbers, and the choice of the hardest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

import train.vision  # noqa: F401  (makes torchvision importable, which pytorch_ood needs)
from oodserve.errors import RecipeError
from tests.by_hand import BATCH, CLASSES, Case, Net, draw, hard, log_softmax, network
from train.methods.losses import cross_entropy, uniform_cross_entropy
from train.methods.mixing import Mixture
from train.methods.mixoe import Mixoe, MixoeSettings
from train.methods.oe import Oe, OeSettings, shares_of_hardest

LOGITS = np.random.default_rng(3).normal(0, 4, size=(12, 5))


def logits() -> Tensor:
    return torch.from_numpy(LOGITS.copy()).requires_grad_()


def test_the_loss_is_that_of_pytorch_ood() -> None:
    from pytorch_ood.loss import OutlierExposureLoss

    labels = torch.tensor([0, 4, 2, 2, 1, 3, 3])
    ours, theirs = logits().float().detach(), logits().float().detach()
    ours.requires_grad_()
    theirs.requires_grad_()
    loss = cross_entropy(ours[:7], labels) + 0.7 * uniform_cross_entropy(ours[7:]).mean()
    targets = torch.cat([labels, torch.full((5,), -1)])
    each = OutlierExposureLoss(alpha=0.7, reduction="none")(theirs, targets)
    # Its "mean" divides by images and outliers together; the paper's means are each group's own.
    expected = each[:7].mean() + each[7:].mean()
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward([loss, expected])
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_gradient_is_p_minus_one_over_k() -> None:
    values = logits()
    torch.autograd.backward(uniform_cross_entropy(values).sum())
    assert values.grad is not None
    np.testing.assert_allclose(values.grad.numpy(), softmax(LOGITS, axis=1) - 1 / 5, atol=1e-14)


def test_undecided_outliers_cost_the_logarithm_of_the_number_of_classes() -> None:
    # Equal logits: H(U, U) = ln 8 = 2.0794, whatever the logits' level.
    exposures = uniform_cross_entropy(torch.tensor([[0.0] * 8, [50.0] * 8, [-7.0] * 8]))
    torch.testing.assert_close(exposures, torch.full((3,), 2.0794415))


def test_weight_scales_the_outliers_term_alone() -> None:
    model, case = network(zscore=False), Case.draw()
    terms = [
        Oe(OeSettings(weight=weight)).objective(model, case.batch(), draw()) for weight in (0, 2)
    ]
    assert torch.equal(terms[0]["loss"], terms[0]["cross_entropy"])
    added = terms[1]["loss"] - terms[1]["cross_entropy"]
    torch.testing.assert_close(added, 2 * terms[1]["uniform"])
    assert float(terms[1]["uniform"].detach()) > np.log(CLASSES)


def test_it_is_mixoe_that_keeps_nothing_of_the_images() -> None:
    model, batch = network(zscore=False), Case.draw().batch()
    for mode in ("joint", "separate"):
        exposed = Oe(OeSettings.model_validate({"weight": 3.0, "forward_mode": mode}))
        mixed = Mixoe(MixoeSettings.model_validate({"mix_weight": 3.0, "forward_mode": mode}))
        torch.testing.assert_close(
            exposed.objective(model, batch, draw())["loss"],
            mixed.terms(model, batch, Mixture(lam=np.zeros(BATCH)))["loss"],
        )


def test_there_may_be_more_outliers_than_images() -> None:
    model, case = network(zscore=False).eval(), Case.draw()
    many = replace(case, outliers=np.concatenate([case.outliers, 2 * case.outliers]))
    terms = Oe(OeSettings()).objective(model, many.batch(), draw())
    net = Net.of(model)
    inside, outside = (net.logits(x, train=False) for x in (many.images, many.outliers))
    assert float(terms["cross_entropy"].detach()) == pytest.approx(hard(inside, many.labels))
    assert float(terms["uniform"].detach()) == pytest.approx(-log_softmax(outside).mean())


def test_images_and_outliers_share_a_pass_unless_asked_otherwise() -> None:
    model, seen = network(zscore=False), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    for settings, passes in ((OeSettings(), 1), (OeSettings(forward_mode="separate"), 2)):
        Oe(settings).objective(model, Case.draw().batch(), draw())
        assert len(seen) == passes
        seen.clear()
    assert OeSettings().forward_mode == "joint"


@pytest.mark.parametrize(("share", "kept"), [(1.0, 12), (0.5, 6), (0.3, 4), (0.01, 1)])
def test_mining_keeps_the_most_confident(share: float, kept: int) -> None:
    weights = shares_of_hardest(logits(), draw(), share=share)
    confidence = softmax(LOGITS, axis=1).max(axis=1)
    hardest = set(np.argsort(-confidence)[:kept].tolist())
    assert set(torch.nonzero(weights)[:, 0].tolist()) == hardest
    assert not weights.requires_grad
    # The mean of weighted losses is the mean over those that are kept.
    losses = np.arange(12.0)
    expected = losses[sorted(hardest)].mean()
    assert float((weights * torch.from_numpy(losses)).mean()) == pytest.approx(expected)


def test_mining_chooses_among_the_outliers_of_all_processes() -> None:
    everyone, whole = logits(), shares_of_hardest(logits(), draw(), share=0.25)
    confidence = torch.softmax(everyone.detach(), dim=1).amax(dim=1)
    halves = [
        shares_of_hardest(
            everyone[6 * rank : 6 * rank + 6],
            replace(draw(), rank=rank, processes=2, gather=lambda rows: confidence),
            share=0.25,
        )
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(halves), whole)


def test_mined_outliers_alone_receive_gradient() -> None:
    model, case = network(zscore=False).eval(), Case.draw()
    batch = case.batch()
    assert batch.outliers is not None
    batch.outliers.requires_grad_()
    terms = Oe(OeSettings(mining=0.4)).objective(model, batch, draw())
    torch.autograd.backward(terms["loss"])
    assert batch.outliers.grad is not None
    moved = batch.outliers.grad.flatten(1).abs().sum(dim=1) > 0
    confidence = log_softmax(Net.of(model).logits(case.outliers, train=False)).max(axis=1)
    assert set(torch.nonzero(moved)[:, 0].tolist()) == set(np.argsort(-confidence)[:2].tolist())


def test_missing_outliers_are_refused() -> None:
    batch = replace(Case.draw().batch(), outliers=None)
    with pytest.raises(RecipeError, match="method `oe` needs outlier images and the batch has"):
        Oe(OeSettings()).objective(network(zscore=False), batch, draw())
