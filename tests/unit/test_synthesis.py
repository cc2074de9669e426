"""Every way to make outliers: by NumPy, by the draw, and without a trace in the model."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from oodserve.errors import RecipeError
from tests.by_hand import BATCH, CLASSES, HEIGHT, SEED, WIDTH, Array, Case, Net, draw, network
from train.draw import Draw
from train.methods.ascood import Ascood, AscoodSettings
from train.methods.method import TrainingBatch
from train.methods.passes import frozen_statistics
from train.methods.registry import METHODS, build_method
from train.methods.synthesis.batches import with_outliers
from train.methods.synthesis.gradient import true_class, true_class_gradient
from train.methods.synthesis.settings import SynthesisSettings, synthesise
from train.methods.synthesis.shuffle import salient_pixels, shuffled_outliers
from train.networks.classifier import Classifier

EVERY = [
    SynthesisSettings(
        kind=kind, p_inv=share, alpha_max=3.0, alpha_min=2.0, target=target, gradient_mode=mode
    )
    for kind, share, target, mode in [
        *product(["gradient", "shuffle"], [0.2, 1.0], ["logit", "softmax"], ["eval", "train"]),
        ("gaussian", 0.1, "logit", "eval"),
    ]
]


def described(settings: SynthesisSettings) -> str:
    return "-".join(str(value) for value in settings.model_dump().values())


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def gradient_by_differences(net: Net, case: Case, settings: SynthesisSettings) -> Array:
    """Return d sum(true class) / d image by central differences in float64."""

    def total(images: Array) -> float:
        values = net.logits(images, train=settings.gradient_mode == "train")
        if settings.target == "softmax":
            values = softmax(values)
        return float(values[np.arange(BATCH), case.labels].sum())

    gradient = np.empty_like(case.images)
    for index in np.ndindex(case.images.shape):
        ahead, behind = case.images.copy(), case.images.copy()
        ahead[index] += 1e-5
        behind[index] -= 1e-5
        gradient[index] = (total(ahead) - total(behind)) / 2e-5
    return gradient


# The gradient.


@pytest.mark.parametrize("target", ["logit", "softmax"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_gradient_equals_central_differences(target: Any, mode: Any) -> None:
    model, case = network(zscore=True), Case.draw()
    settings = SynthesisSettings(target=target, gradient_mode=mode)
    expected = gradient_by_differences(Net.of(model), case, settings)
    actual = true_class_gradient(model, *case.tensors(), target=target, mode=mode)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-8)


def test_the_softmax_gradient_follows_from_those_of_the_logits() -> None:
    model, case = network(zscore=False), Case.draw()
    images, labels = case.tensors()
    with torch.no_grad():
        p = softmax(model.eval()(images).numpy())
    model.train()
    by_class = np.stack(
        [
            true_class_gradient(model, images, torch.full((BATCH,), label)).numpy()
            for label in range(CLASSES)
        ]
    )
    own = p[np.arange(BATCH), case.labels][:, None, None, None]
    mean = np.einsum("nk,knchw->nchw", p, by_class)
    expected = own * (by_class[case.labels, np.arange(BATCH)] - mean)
    actual = true_class_gradient(model, images, labels, target="softmax")
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_only_in_train_mode_do_images_touch_each_others_gradients() -> None:
    model, case = network(zscore=True), Case.draw()
    images, labels = case.tensors()
    moved = images.clone()
    moved[0] += 1
    for mode, same in (("eval", True), ("train", False)):
        before = true_class_gradient(model, images, labels, mode=mode)  # type: ignore[arg-type]
        after = true_class_gradient(model, moved, labels, mode=mode)  # type: ignore[arg-type]
        assert torch.allclose(before[1:], after[1:], rtol=1e-9) == same


def test_the_true_class_is_summed() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 3.0]])
    labels = torch.tensor([1, 0])
    assert float(true_class(logits, labels, target="logit")) == 5
    expected = 1 / (1 + np.exp(-1)) + 0.5
    assert float(true_class(logits, labels, target="softmax")) == pytest.approx(expected)


# The kinds.


@pytest.mark.parametrize("direction", ["add", "subtract"])
def test_subtracting_is_adding_the_other_way(direction: Any) -> None:
    model, case = network(zscore=True), Case.draw()
    images, labels = case.tensors()
    settings = SynthesisSettings(alpha_max=7, alpha_min=7, p_inv=1.0, direction=direction)
    outliers = synthesise(model, images, labels, settings=settings, draw=draw())
    gradient = Net.of(model).true_class_gradient(case.images, case.labels)
    sign = {"add": 1, "subtract": -1}[direction]
    expected = case.images + sign * 7 * gradient
    np.testing.assert_allclose(outliers.numpy(), expected, rtol=1e-9, atol=1e-12)
    small = SynthesisSettings(alpha_max=1e-4, alpha_min=1e-4, direction=direction)
    nearby = synthesise(model, images, labels, settings=small, draw=draw())
    model.eval()
    change = (model(nearby) - model(images)).gather(1, labels[:, None])
    assert bool((sign * change > 0).all())


def test_saliency_is_the_sum_of_exponentials_over_the_channels() -> None:
    gradient = np.random.default_rng(0).normal(0, 3, size=(4, 3, 5, 6))
    saliency = np.exp(gradient).sum(axis=1).reshape(4, -1)
    expected = np.sort(np.argsort(-saliency, axis=1)[:, : int(30 * 0.25)], axis=1)
    actual = np.sort(salient_pixels(torch.from_numpy(gradient), share=0.25).numpy(), axis=1)
    assert np.array_equal(actual, expected)


def test_saliency_prefers_positive_gradients_and_does_not_overflow() -> None:
    gradient = torch.zeros(1, 1, 2, 3)
    gradient[0, 0, 0] = torch.tensor([-500.0, 400.0, 300.0])
    assert sorted(salient_pixels(gradient, share=0.34)[0].tolist()) == [1, 2]


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_shuffling_keeps_the_pixels_and_where_the_others_are(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 8, 9, generator=generator)
    gradient = torch.randn(6, 3, 8, 9, generator=generator)
    outliers = shuffled_outliers(images, gradient, share=share, draw=draw())
    chosen = salient_pixels(gradient, share=share)
    assert chosen.shape == (6, int(72 * share))
    for image, outlier, places in zip(images, outliers, chosen, strict=True):
        before, after = image.flatten(1).T, outlier.flatten(1).T  # (H W, C)
        assert Counter(map(tuple, before.tolist())) == Counter(map(tuple, after.tolist()))
        others = torch.ones(72, dtype=torch.bool)
        others[places] = False
        assert torch.equal(before[others], after[others])
        assert not torch.equal(before, after)
    moved = [
        (image != outlier).any(dim=0).flatten()
        for image, outlier in zip(images, outliers, strict=True)
    ]
    assert not torch.equal(moved[0], moved[1])


def test_shuffling_equals_the_same_permutation_in_numpy() -> None:
    rng = np.random.default_rng(0)
    images, gradient = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(2, 3, 3, 4))
    outliers = shuffled_outliers(
        torch.from_numpy(images), torch.from_numpy(gradient), share=0.5, draw=draw()
    )
    numbers = torch.rand((2, 6), generator=torch.Generator().manual_seed(SEED)).numpy()
    expected = images.copy().reshape(2, 3, 12)
    for row in range(2):
        places = np.argsort(-np.exp(gradient[row]).sum(axis=0).ravel(), kind="stable")[:6]
        order = np.argsort(numbers[row], kind="stable")
        for place, origin in zip(places, places[order], strict=True):
            expected[row, :, place] = images[row].reshape(3, 12)[:, origin]
    assert np.array_equal(outliers.numpy().reshape(2, 3, 12), expected)


def test_all_permutations_are_equally_likely() -> None:
    images = torch.arange(3.0).reshape(1, 1, 1, 3).expand(6000, 1, 1, 3)
    outliers = shuffled_outliers(images, torch.zeros(6000, 1, 1, 3), share=1.0, draw=draw())
    counts = Counter(map(tuple, outliers.flatten(1).tolist()))
    assert len(counts) == 6
    # Six standard deviations of a count of 1000 +- 29.
    assert max(abs(count - 1000) for count in counts.values()) < 6 * 29


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_fewer_than_two_pixels_are_refused(share: float) -> None:
    with pytest.raises(
        RecipeError, match=r"`p_inv` = 0\.0. keeps `[01]` of an image's 24 pixels.* at least 0\.083"
    ):
        salient_pixels(torch.zeros(1, 3, 4, 6), share=share)


def test_noise_is_standard_normal_times_its_strength_and_knows_no_image() -> None:
    settings = SynthesisSettings(kind="gaussian", alpha_max=3.0, alpha_min=1.0)
    model, labels = network(zscore=False), torch.zeros(40, dtype=torch.int64)
    model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    made = [
        synthesise(model, images, labels, settings=settings, draw=draw(epoch=1, epochs=2))
        for images in (torch.zeros(40, 3, 16, 16), 100 + torch.randn(40, 3, 16, 16))
    ]
    assert torch.equal(*made)
    # Strength 1 + 2 (1 - 1 / 2) = 2; 30720 numbers, so six standard errors of mean and deviation.
    assert abs(float(made[0].mean())) < 6 * 2 / np.sqrt(30720)
    assert float(made[0].std()) == pytest.approx(2, rel=6 / np.sqrt(2 * 30720))


# For all of them.


def halves(rank: int) -> Draw:
    return Draw(
        rng=np.random.default_rng(0),
        torch_generator=torch.Generator().manual_seed(0),
        epoch=1,
        epochs=1,
        rank=rank,
        processes=2,
    )


@pytest.mark.parametrize("settings", [s for s in EVERY if s.gradient_mode == "eval"], ids=described)
def test_two_processes_make_what_one_makes(settings: SynthesisSettings) -> None:
    model, case = network(zscore=True), Case.draw()
    images, labels = (part[:4] for part in case.tensors())
    one = Draw(np.random.default_rng(0), torch.Generator().manual_seed(0), 1, 1)
    whole = synthesise(model, images, labels, settings=settings, draw=one)
    parts = [
        synthesise(model, images[rows], labels[rows], settings=settings, draw=halves(rank))
        for rank, rows in enumerate((slice(0, 2), slice(2, 4)))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("settings", EVERY, ids=described)
def test_making_outliers_leaves_no_trace(settings: SynthesisSettings) -> None:
    model, case = network(zscore=True), Case.draw()
    model.get_submodule("backbone.3").eval()
    images, labels = case.tensors()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    generator = torch.get_rng_state()
    outliers = synthesise(model, images, labels, settings=settings, draw=draw())
    assert outliers.shape == images.shape
    assert outliers.dtype == images.dtype
    assert not outliers.requires_grad
    assert not images.requires_grad
    assert images.grad is None
    assert torch.equal(images, case.tensors()[0])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    norm = model.get_submodule("backbone.2")
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.track_running_stats
    assert torch.equal(torch.get_rng_state(), generator)


OUTLIER_METHODS = sorted(name for name in METHODS if METHODS[name].settings.needs_outliers)


@pytest.mark.parametrize("kind", ["gradient", "shuffle", "gaussian"])
@pytest.mark.parametrize("name", OUTLIER_METHODS)
def test_every_method_that_needs_outliers_takes_synthesised_ones(name: str, kind: Any) -> None:
    method = build_method(METHODS[name].settings())
    model, case = network(zscore=False), Case.draw()
    method.attach(model)
    model.double()
    images, labels = case.tensors()
    settings = SynthesisSettings(kind=kind, alpha_max=1.0, alpha_min=1.0)
    outliers = synthesise(model, images, labels, settings=settings, draw=draw())
    terms = method.objective(model, TrainingBatch(images, labels, outliers), draw())
    assert bool(torch.isfinite(terms["loss"]))
    torch.autograd.backward(terms["loss"])


# With a batch.


def batch_of(case: Case, rows: slice) -> TrainingBatch:
    images, labels = case.tensors()
    return TrainingBatch(images[rows].contiguous(), labels[rows].contiguous())


def test_each_image_goes_with_its_own_outlier_or_with_that_of_another() -> None:
    model, case = network(zscore=True), Case.draw()
    batch = batch_of(case, slice(0, 4))
    plain = SynthesisSettings(alpha_max=3.0, alpha_min=2.0, p_inv=0.3)
    other = plain.model_copy(update={"partner": "permuted"})
    own, terms = with_outliers(model, batch, settings=plain, draw=draw())
    moved, same_terms = with_outliers(model, batch, settings=other, draw=draw())
    assert own.outliers is not None
    assert moved.outliers is not None
    assert torch.equal(moved.images, batch.images)
    assert torch.equal(moved.labels, batch.labels)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(SEED))
    assert order.tolist() != [0, 1, 2, 3]
    torch.testing.assert_close(moved.outliers, own.outliers[order])
    # The change is that of the image which the outlier was made from, not of the one it goes with.
    change = np.abs((own.outliers - batch.images).numpy())
    for found in (terms, same_terms):
        assert found.keys() == {"perturbation_mean", "perturbation_max"}
        assert float(found["perturbation_mean"]) == pytest.approx(change.mean())
        assert float(found["perturbation_max"]) == pytest.approx(change.max())


def test_noise_has_no_perturbation() -> None:
    model, batch = network(zscore=True), batch_of(Case.draw(), slice(0, 4))
    for kind, terms in (("gaussian", 0), ("shuffle", 2)):
        settings = SynthesisSettings.model_validate({"kind": kind})
        assert len(with_outliers(model, batch, settings=settings, draw=draw())[1]) == terms
        table = {"name": "ascood", "kind": kind}
        logged = Ascood(AscoodSettings.model_validate(table)).objective(model, batch, draw())
        assert sum(name.startswith("perturbation") for name in logged) == terms


# Statistics that stay.


class Running(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.followed, self.own = nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)
        self.fixed = nn.BatchNorm2d(2).eval()

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.fixed(self.own(self.followed(images)))
        return found


def test_frozen_statistics_normalise_by_the_batch_and_forget_it() -> None:
    model, images = Running(), torch.randn(4, 2, 3, 3) + 5
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with frozen_statistics(model):
        inside = model(images)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [model.followed.track_running_stats, model.own.track_running_stats] == [True, False]
    assert not model.fixed.training
    torch.testing.assert_close(model(images), inside)
    assert int(model.followed.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_infinite_statistics_do_not_reach_the_running_ones() -> None:
    model = nn.BatchNorm1d(2)
    with frozen_statistics(model):
        model(torch.full((3, 2), torch.inf))
    assert torch.equal(model.running_mean, torch.zeros(2))  # type: ignore[arg-type]


def test_statistics_run_again_after_an_error() -> None:
    model = Running()
    with pytest.raises(ValueError, match="expected 4D"), frozen_statistics(model):
        model(torch.zeros(4, 2))
    assert model.followed.track_running_stats


# Settings.


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"kind": "noise"}, "'gradient', 'shuffle' or 'gaussian'"),
        ({"direction": "up"}, "'add' or 'subtract'"),
        ({"target": "loss"}, "'logit' or 'softmax'"),
        ({"gradient_mode": "frozen"}, "'eval' or 'train'"),
        ({"p_inv": 0}, "greater than 0"),
        ({"alpha_min": 1}, "the strength falls over the epochs"),
    ],
)
def test_settings_out_of_range_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SynthesisSettings.model_validate(knobs)


def test_the_network_of_these_tests_is_not_square() -> None:
    # So that height and width cannot be taken for each other.
    model: Classifier = network(zscore=False)
    assert HEIGHT != WIDTH
    assert model(torch.zeros(2, 3, HEIGHT, WIDTH).double()).shape == (2, CLASSES)
