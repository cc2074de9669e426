"""Outliers made from the gradient: which entries, how strong, and what the model keeps."""

from __future__ import annotations

import doctest
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import train.methods.synthesis.settings
from oodserve.errors import RecipeError
from tests.by_hand import BATCH, FEATURES, PIXELS, Case, Net, draw, network
from train.methods.ascood import Ascood, AscoodSettings
from train.methods.method import TrainingBatch
from train.methods.passes import evaluating
from train.methods.synthesis.gradient import (
    gradient_outliers,
    largest_entries,
    true_class_gradient,
)
from train.methods.synthesis.settings import strength_at
from train.networks.classifier import Classifier


def small_network() -> Classifier:
    """Return a convolution with BatchNorm, in train mode, whose classes differ."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    return Classifier(backbone, 32, 4, feature_norm="zscore").train()


def small_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(6, 3, 8, 8, generator=generator)
    return images, torch.randint(4, (6,), generator=generator)


def made(
    model: nn.Module, images: Tensor, labels: Tensor, *, strength: float, share: float
) -> Tensor:
    gradient = true_class_gradient(model, images, labels)
    return gradient_outliers(images, gradient, strength=strength, share=share)


# Which entries.


def test_the_mask_keeps_the_largest_magnitudes_of_each_row() -> None:
    values = torch.tensor([[[1.0, -9.0], [3.0, 2.0]], [[-0.4, 0.1], [0.2, 0.3]]])
    expected = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert torch.equal(largest_entries(values, share=0.5), expected)


@pytest.mark.parametrize("share", [1 / 192, 0.1, 0.15, 0.999, 1.0])
def test_the_mask_has_exactly_the_truncated_number_of_entries(share: float) -> None:
    gradient = torch.randn(5, 3, 8, 8)
    mask = largest_entries(gradient, share=share)
    assert mask.shape == gradient.shape
    assert mask.flatten(1).sum(dim=1).tolist() == [int(192 * share)] * 5
    assert set(mask.flatten().tolist()) <= {0.0, 1.0}


def test_ties_do_not_add_entries() -> None:
    mask = largest_entries(torch.ones(2, 3, 4, 4), share=0.25)
    assert mask.flatten(1).sum(dim=1).tolist() == [12.0, 12.0]


def test_the_mask_agrees_with_a_percentile() -> None:
    gradient = np.random.default_rng(0).normal(size=(4, 3, 10, 10))
    magnitudes = np.abs(gradient).reshape(4, -1)
    # The paper's own wording: at or above the (100 - p)-th percentile, p = 10 %.
    threshold = np.percentile(magnitudes, 90, axis=1, method="higher", keepdims=True)
    mask = largest_entries(torch.from_numpy(gradient), share=0.1)
    assert np.array_equal(mask.flatten(1).numpy() == 1, magnitudes >= threshold)


def test_a_share_of_less_than_one_entry_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"`p_inv` = 0\.005 keeps none of an image's 192 .* at least 0\.0052"
    ):
        largest_entries(torch.ones(1, 3, 8, 8), share=0.005)


# The gradient.


def test_the_gradient_equals_the_chain_rule_by_hand() -> None:
    model, case = network(zscore=True), Case.draw()
    actual = true_class_gradient(model, *case.tensors())
    expected = Net.of(model).true_class_gradient(case.images, case.labels)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_of_the_true_class_and_not_of_the_predicted_one() -> None:
    model, (images, labels) = small_network(), small_batch()
    gradient = true_class_gradient(model, images, labels)
    other = true_class_gradient(model, images, (labels + 1) % 4)
    assert not torch.allclose(gradient, other, atol=1e-4)


def test_each_images_gradient_is_its_own() -> None:
    model, (images, labels) = small_network(), small_batch()
    together = true_class_gradient(model, images, labels)
    alone = [true_class_gradient(model, images[i : i + 1], labels[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_small_step_does_not_lower_the_true_class() -> None:
    model, (images, labels) = small_network(), small_batch()
    outliers = made(model, images, labels, strength=1e-2, share=0.1)
    model.eval()
    before = model(images).gather(1, labels[:, None])
    after = model(outliers).gather(1, labels[:, None])
    assert bool((after > before).all())


def test_outliers_are_the_masked_gradient_added_and_nothing_else() -> None:
    model, (images, labels) = small_network(), small_batch()
    outliers = made(model, images, labels, strength=50.0, share=0.1)
    gradient = true_class_gradient(model, images, labels)
    changed = outliers != images
    assert changed.flatten(1).sum(dim=1).tolist() == [19] * 6  # int(192 * 0.1)
    expected = torch.where(changed, images + 50.0 * gradient, images)
    torch.testing.assert_close(outliers, expected)
    # Neither normalised nor clipped to the images' range.
    assert float(outliers.abs().max()) > float(images.abs().max())
    full = made(model, images, labels, strength=2.0, share=1.0)
    torch.testing.assert_close(full, images + 2.0 * gradient)


# What is left as it was.


def test_synthesis_leaves_no_trace_in_the_model() -> None:
    model, (images, labels) = small_network(), small_batch()
    untouched = images.clone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outliers = made(model, images, labels, strength=1.0, share=0.1)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert not outliers.requires_grad
    assert not images.requires_grad
    assert torch.equal(images, untouched)


def test_synthesis_works_where_gradients_are_switched_off() -> None:
    model, (images, labels) = small_network(), small_batch()
    expected = made(model, images, labels, strength=1.0, share=0.1)
    with torch.no_grad():
        actual = made(model, images, labels, strength=1.0, share=0.1)
        assert not torch.is_grad_enabled()
    assert torch.equal(actual, expected)


def test_modules_that_were_in_eval_mode_stay_there() -> None:
    model = small_network()
    norm = model.get_submodule("backbone.1")
    norm.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert not norm.training
    assert model.training
    assert model.get_submodule("backbone.0").training


def test_modes_come_back_after_an_error() -> None:
    model = small_network()
    with pytest.raises(RuntimeError, match="3 channels"):
        true_class_gradient(model, torch.zeros(2, 5, 8, 8), torch.tensor([0, 1]))
    assert all(module.training for module in model.modules())


def test_running_statistics_are_those_of_one_joint_pass() -> None:
    model, case = network(zscore=True), Case.draw()
    twin = network(zscore=True)
    settings = AscoodSettings(alpha_max=5.0, alpha_min=5.0)
    Ascood(settings).objective(model, case.batch(), draw())
    outliers = made(twin, *case.tensors(), strength=5.0, share=0.1)
    seen: list[int] = []
    twin.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    twin(torch.cat([case.tensors()[0], outliers]))
    assert seen == [2 * BATCH]
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name))
    assert int(model.get_buffer("backbone.2.num_batches_tracked")) == 1
    assert model.get_buffer("backbone.2.running_mean").shape == (FEATURES,)


# The schedule of alpha.


def test_the_strength_falls_linearly_to_exactly_its_minimum() -> None:
    # 300 -> 30 over 30 epochs, as for water birds: 9 less each epoch.
    values = [strength_at(e, epochs=30, alpha_max=300, alpha_min=30) for e in range(1, 31)]
    assert values[0] == pytest.approx(291)
    assert all(before - after == pytest.approx(9) for before, after in pairwise(values))
    assert values[-1] == 30
    assert strength_at(7, epochs=7, alpha_max=0.3, alpha_min=0.1) == 0.1


@pytest.mark.parametrize(("epoch", "alpha"), [(1, 8.0), (2, 5.0), (3, 2.0)])
def test_the_objective_takes_the_strength_of_its_epoch(epoch: int, alpha: float) -> None:
    # From 11 to 2 in three epochs: 3 less in each.
    model, case = network(zscore=True), Case.draw()
    outliers = made(model, *case.tensors(), strength=alpha, share=0.1)
    expected = (outliers - case.tensors()[0]).abs()
    settings = AscoodSettings(alpha_max=11.0, alpha_min=2.0)
    terms = Ascood(settings).objective(model, case.batch(), draw(epoch=epoch, epochs=3))
    assert float(terms["perturbation_max"]) == pytest.approx(float(expected.max()))
    assert float(terms["perturbation_mean"]) == pytest.approx(float(expected.mean()))


def test_training_makes_the_model_less_certain_of_its_outliers() -> None:
    model, (images, labels) = small_network(), small_batch()
    method = Ascood(AscoodSettings(alpha_max=100.0, alpha_min=100.0, p_inv=0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    history = []
    for _ in range(40):
        terms = method.objective(model, TrainingBatch(images, labels), draw())
        optimizer.zero_grad()
        torch.autograd.backward(terms["loss"])
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    assert history[-1]["cross_entropy"] < 0.7 * history[0]["cross_entropy"]
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_documented_example() -> None:
    result = doctest.testmod(train.methods.synthesis.settings)
    assert (result.attempted, result.failed) == (1, 0)


def test_the_hand_written_network_is_the_torch_one() -> None:
    for zscore in (True, False):
        model, case = network(zscore=zscore), Case.draw()
        net = Net.of(model)
        images = case.tensors()[0]
        assert images[0].numel() == PIXELS
        np.testing.assert_allclose(model(images).detach().numpy(), net.logits(case.images))
        np.testing.assert_allclose(
            Net.of(model).logits(case.images, train=False), model.eval()(images).detach().numpy()
        )
