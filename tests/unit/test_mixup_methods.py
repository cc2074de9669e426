"""Mixup and logit mixing: pairs over all processes, ends, weights, and who shares a pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.by_hand import (
    BATCH,
    CLASSES,
    FEATURES,
    PIXELS,
    Case,
    Net,
    distance,
    draw,
    hard,
    network,
    soft,
)
from train.methods.logit_mixing import LogitMixing, LogitMixingSettings
from train.methods.mixing import CoefficientSettings, Mixture
from train.methods.mixup import Mixup, MixupSettings
from train.methods.pairing import Pairs, pairs_for
from train.networks.classifier import Classifier


def pairs_of(case: Case, lam: float, *, shift: int = 1) -> Pairs:
    """Return each image's pair with the one `shift` rows further."""
    order = (np.arange(BATCH) + shift) % BATCH
    images, labels = case.tensors()
    return Pairs(
        mixture=Mixture(lam=np.full(BATCH, lam)),
        permutation=torch.from_numpy(order),
        images=images[order],
        labels=labels[order],
    )


def test_partners_are_a_permutation_and_bring_their_labels() -> None:
    batch = Case.draw().batch()
    pairs = pairs_for(batch, draw(), settings=MixupSettings())
    assert sorted(pairs.permutation.tolist()) == list(range(BATCH))
    assert torch.equal(pairs.images, batch.images[pairs.permutation])
    assert torch.equal(pairs.labels, batch.labels[pairs.permutation])


def test_partners_are_found_on_any_process() -> None:
    case, settings = Case.draw(), MixupSettings(lam_per="sample")
    whole = pairs_for(case.batch(), draw(), settings=settings)
    images, labels = case.tensors()
    everyone = {images.shape[1:]: images[:4], labels.shape[1:]: labels[:4]}
    one = pairs_for(
        replace(case.batch(), images=images[:4], labels=labels[:4]), draw(), settings=settings
    )
    for rank in range(2):
        rows = slice(2 * rank, 2 * rank + 2)
        mine = replace(case.batch(), images=images[rows], labels=labels[rows])
        there = replace(
            draw(), rank=rank, processes=2, gather=lambda values: everyone[values.shape[1:]]
        )
        part = pairs_for(mine, there, settings=settings)
        assert torch.equal(part.permutation, one.permutation[rows])
        assert torch.equal(part.images, one.images[rows])
        assert torch.equal(part.labels, one.labels[rows])
        assert np.array_equal(part.mixture.lam, one.mixture.lam[rows])
    assert len(whole.permutation) == BATCH


def test_targets_hand_computed() -> None:
    pairs = Pairs(
        mixture=Mixture(lam=np.array([0.7, 0.4])),
        permutation=torch.tensor([1, 0]),
        images=torch.zeros(2, 3, 1, 1),
        labels=torch.tensor([2, 1]),
    )
    targets = pairs.targets(torch.tensor([0, 1]), like=torch.zeros(2, 3))
    # 0.7 of class 0 with 0.3 of class 2; both of class 1.
    torch.testing.assert_close(targets, torch.tensor([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]]))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_mixup_at_the_ends_is_cross_entropy_of_one_of_the_two(lam: float) -> None:
    model, case = network(zscore=False), Case.draw()
    pairs = pairs_of(case, lam)
    loss = Mixup(MixupSettings()).terms(model, case.batch(), pairs)["loss"]
    # The partners are the same images in another order, so both ends cost the same.
    expected = hard(Net.of(model).logits(case.images), case.labels)
    assert float(loss.detach()) == pytest.approx(expected)


def test_mixup_is_the_weighted_sum_of_both_labels_losses() -> None:
    model, case = network(zscore=False), Case.draw()
    pairs = pairs_of(case, 0.3)
    loss = Mixup(MixupSettings()).terms(model, case.batch(), pairs)["loss"]
    order = pairs.permutation.numpy()
    logits = Net.of(model).logits(0.3 * case.images + 0.7 * case.images[order])
    expected = 0.3 * hard(logits, case.labels) + 0.7 * hard(logits, case.labels[order])
    assert float(loss.detach()) == pytest.approx(expected)


def test_logit_mixing_of_an_image_with_itself_is_consistent() -> None:
    model, case = network(zscore=False), Case.draw()
    settings = LogitMixingSettings(mix_weight=0.5, clean_weight=2.0)
    terms = LogitMixing(settings).terms(model, case.batch(), pairs_of(case, 0.4, shift=0))
    assert float(terms["consistency"].detach()) < 1e-20
    expected = 2.5 * hard(Net.of(model).logits(case.images), case.labels)
    assert float(terms["loss"].detach()) == pytest.approx(expected)


def test_logit_mixing_of_a_linear_network_is_consistent() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, FEATURES), nn.BatchNorm1d(FEATURES))
    model, case = Classifier(backbone, FEATURES, CLASSES).double().train(), Case.draw()
    for elsewhere in (False, True):
        terms = LogitMixing(LogitMixingSettings(consistency="l2")).terms(
            model, case.batch(), pairs_of(case, 0.3), elsewhere=elsewhere
        )
        assert float(terms["consistency"].detach()) < 1e-12


def test_partners_on_other_processes_change_nothing_but_the_pass() -> None:
    """Without batch statistics the objective and its gradient are those of one process."""
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, FEATURES), nn.Tanh())
    model, case = Classifier(backbone, FEATURES, CLASSES).double().train(), Case.draw()
    seen: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    gradients = []
    for elsewhere in (False, True):
        model.zero_grad()
        terms = LogitMixing(LogitMixingSettings()).terms(
            model, case.batch(), pairs_of(case, 0.3), elsewhere=elsewhere
        )
        torch.autograd.backward(terms["loss"])
        gradients.append([found(parameter) for parameter in model.parameters()])
    assert seen == [2 * BATCH, 3 * BATCH]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def found(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_partners_logits_receive_gradient(elsewhere: bool) -> None:
    case, model = Case.draw(), network(zscore=False).eval()
    images, _ = case.tensors()
    pairs = pairs_of(case, 1.0)
    # Of all rows only the first is mixed, with the second, so the other distances are 0.
    pairs.mixture.lam[0] = 0.4
    images.requires_grad_()
    pairs.images.requires_grad_()
    settings = LogitMixingSettings(mix_weight=0, clean_weight=0)
    batch = replace(case.batch(), images=images)
    terms = LogitMixing(settings).terms(model, batch, pairs, elsewhere=elsewhere)
    torch.autograd.backward(terms["loss"])
    assert images.grad is not None
    assert pairs.images.grad is not None
    largest = images.grad.abs().amax(dim=(1, 2, 3))
    assert float(largest[0]) > 1e-5
    assert bool((largest[2:] == 0).all())
    # As the first row's partner: of this process by its own logits, of another by its copy's.
    assert (float(largest[1]) > 1e-5) != elsewhere
    assert float(pairs.images.grad[0].abs().max()) > 1e-5


def test_logit_mixings_terms_add_up_by_their_weights() -> None:
    model, case, pairs = network(zscore=False), Case.draw(), pairs_of(Case.draw(), 0.8)
    settings = LogitMixingSettings(
        mix_weight=3.0, clean_weight=0.25, consistency="l2", consistency_weight=0.1
    )
    terms = LogitMixing(settings).terms(model, case.batch(), pairs)
    mixed = 0.8 * case.images + 0.2 * case.images[pairs.permutation.numpy()]
    own, after = np.split(Net.of(model).logits(np.concatenate([case.images, mixed])), 2)
    onehot = np.eye(CLASSES)[case.labels]
    order = pairs.permutation.numpy()
    expected = {
        "cross_entropy": hard(own, case.labels),
        "mixed": soft(after, 0.8 * onehot + 0.2 * onehot[order]),
        "consistency": distance("l2", 0.8 * own + 0.2 * own[order], after),
    }
    for name, value in expected.items():
        assert float(terms[name].detach()) == pytest.approx(value), name
    loss = 0.25 * expected["cross_entropy"] + 3 * expected["mixed"] + 0.1 * expected["consistency"]
    assert float(terms["loss"].detach()) == pytest.approx(loss)


def test_the_beta_distribution_may_be_asymmetric() -> None:
    rng = np.random.default_rng(0)
    lam = CoefficientSettings(mix_alpha=0.1, mix_beta_shape=1.0).coefficients(rng, size=20_000)
    # Beta(a, b) has mean a / (a + b) = 0.0909 and P(lam < x) = x ** a at b = 1: 0.631 at 0.01.
    assert lam.mean() == pytest.approx(1 / 11, abs=0.006)
    assert (lam < 0.01).mean() == pytest.approx(0.01**0.1, abs=0.015)
    even = CoefficientSettings(mix_alpha=0.1).coefficients(rng, size=20_000)
    assert even.mean() == pytest.approx(0.5, abs=0.015)
