"""The Gaussian head: its logits, where it starts, and that an exported graph has the same ones."""

from __future__ import annotations

import copy
import re
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance
from torch import Tensor, nn

from export.graph import export_graph
from oodserve.bundle import InputSpec
from oodserve.errors import RecipeError
from oodserve.images import Preprocessing
from train.networks.classifier import Classifier
from train.networks.gaussian import Covariance, GaussianHead, tied_gaussians
from train.optimisation import parameter_groups
from train.recipes import StageRecipe
from train.scorers.energy import Energy

every_covariance = pytest.mark.parametrize("covariance", get_args(Covariance))

N_FEATURES, N_CLASSES = 6, 4


def head_of(covariance: Covariance, *, seed: int = 0) -> GaussianHead:
    """Return a head in float64 whose parameters are all different."""
    torch.manual_seed(seed)
    head = GaussianHead(N_FEATURES, N_CLASSES, covariance=covariance).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.7)
    return head


def clusters(
    n: int, size: int, n_classes: int, *, seed: int, deviation: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return correlated features (n, size) around the means of their classes, and labels."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(size, size)) / np.sqrt(size)
    labels = rng.permutation(np.arange(n) % n_classes)
    means = rng.normal(2, 4, size=(n_classes, size))
    features = means[labels] + deviation * rng.normal(size=(n, size)) @ mixing
    return torch.from_numpy(features), torch.from_numpy(labels)


# The logits.


@every_covariance
def test_logits_are_squared_mahalanobis_distances(covariance: Covariance) -> None:
    head = head_of(covariance)
    features = np.random.default_rng(0).normal(size=(7, N_FEATURES))
    factor = np.diag(np.exp(head.log_diagonal.detach().numpy()))
    if covariance == "full":
        factor = factor + np.tril(head.lower.detach().numpy(), -1)
    precision = np.linalg.inv(factor @ factor.T)
    expected = -(cdist(features, head.means.detach().numpy(), "mahalanobis", VI=precision) ** 2)
    actual = head(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-9)
    np.testing.assert_allclose(head.factor().detach().numpy(),
                               factor if covariance == "full" else np.diag(factor))  # fmt: skip


@every_covariance
def test_gradients_equal_finite_differences(covariance: Covariance) -> None:
    head = head_of(covariance)
    features = torch.randn(3, N_FEATURES, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in head.named_parameters()]

    def logits(rows: Tensor, *values: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(
            head, dict(zip(names, values, strict=True)), rows
        )
        return found

    parameters = [head.get_parameter(name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(logits, (features, *parameters))


def test_what_is_on_and_above_the_diagonal_of_lower_is_ignored() -> None:
    head, features = head_of("full"), torch.randn(3, N_FEATURES, dtype=torch.float64)
    before = head(features)
    with torch.no_grad():
        head.lower.add_(torch.ones_like(head.lower).triu())
    assert torch.equal(head(features), before)


@pytest.mark.parametrize("size", [32, 512])
def test_a_mean_itself_is_at_distance_zero_and_nothing_above(size: int) -> None:
    torch.manual_seed(0)
    features, labels = clusters(2 * size, size, 5, seed=0)
    head = GaussianHead(size, 5)
    head.start_from(features, labels, ridge=1e-3)
    logits = head(torch.cat([head.means, features.float()])).detach()
    assert torch.equal(logits[:5].diagonal(), torch.zeros(5))
    assert float(logits.max()) <= 0


@every_covariance
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_change_nothing(
    covariance: Covariance, dtype: torch.dtype
) -> None:
    head = head_of(covariance).float()
    features = torch.randn(5, N_FEATURES).to(dtype)
    expected = head(features.float())
    assert torch.equal(head(features), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = head(features)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


# Where it starts.


@every_covariance
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "size"), [(600, 24), (40, 64), (15, 200)])
@pytest.mark.parametrize("deviation", [0.01, 1.0, 300.0])
def test_the_start_puts_the_images_at_minus_one(
    covariance: Covariance, seed: int, n: int, size: int, deviation: float
) -> None:
    features, labels = clusters(n, size, 5, seed=seed, deviation=deviation)
    head = GaussianHead(size, 5, covariance=covariance)
    head.start_from(features.float(), labels, ridge=1e-3)
    logits = head(features.float()).detach()
    own = logits.gather(1, labels.unsqueeze(1))
    assert float(own.mean()) == pytest.approx(-1, abs=0.05)
    if deviation == 0.01:
        nearest = torch.cdist(features, head.means.double().detach()).argmin(dim=1)
        assert torch.equal(logits.argmax(dim=1), nearest)


def test_the_start_is_the_tied_covariance_times_the_number_of_features() -> None:
    features, labels = clusters(20_000, 5, 3, seed=0)
    tied = tied_gaussians(features, labels, 3, covariance="full", ridge=1e-6)
    means = np.stack([features[labels == k].mean(dim=0).numpy() for k in range(3)])
    np.testing.assert_allclose(tied.means.numpy(), means)
    oracle = EmpiricalCovariance(assume_centered=True).fit(features.numpy() - means[labels.numpy()])
    np.testing.assert_allclose(
        (tied.factor @ tied.factor.T).numpy(), 5 * oracle.covariance_, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(tied.factor, tied.factor.tril())
    diagonal = tied_gaussians(features, labels, 3, covariance="diag", ridge=1e-6)
    np.testing.assert_allclose(
        diagonal.factor.numpy() ** 2, 5 * np.diag(oracle.covariance_), rtol=1e-4
    )


@every_covariance
def test_the_heads_parameters_are_the_fitted_ones(covariance: Covariance) -> None:
    features, labels = clusters(200, N_FEATURES, N_CLASSES, seed=1)
    head = GaussianHead(N_FEATURES, N_CLASSES, covariance=covariance).double()
    head.start_from(features, labels, ridge=0.1)
    tied = tied_gaussians(features, labels, N_CLASSES, covariance=covariance, ridge=0.1)
    torch.testing.assert_close(head.factor().detach(), tied.factor)
    torch.testing.assert_close(head.means.detach(), tied.means)
    assert bool(head.populated.all())
    assert all(parameter.requires_grad for parameter in head.parameters())


def test_a_class_without_images_gets_the_mean_of_all() -> None:
    features, labels = clusters(60, N_FEATURES, 3, seed=0)
    labels[labels == 1] = 3
    head = GaussianHead(N_FEATURES, N_CLASSES).double()
    head.start_from(features, labels, ridge=1e-3)
    assert head.populated.tolist() == [True, False, True, True]
    torch.testing.assert_close(head.means[1].detach(), features.mean(dim=0))
    assert bool(torch.isfinite(head(features)).all())


@every_covariance
@pytest.mark.parametrize(("value", "said"), [(2.0, "0.0"), (float("nan"), "nan")])
def test_features_that_cannot_be_started_from_are_refused(
    covariance: Covariance, value: float, said: str
) -> None:
    features = torch.full((6, N_FEATURES), value)
    head = GaussianHead(N_FEATURES, N_CLASSES, covariance=covariance)
    with pytest.raises(
        RecipeError,
        match=re.escape(f"within the classes is `{said}`, so no Gaussian head can start")
        + ".* several different images",
    ):
        head.start_from(features, torch.arange(6) % N_CLASSES, ridge=1e-3)


def test_weight_decay_spares_the_head() -> None:
    model = Classifier(nn.Flatten(), 12, 3)
    settings = StageRecipe(epochs=1, batch_size=2, learning_rate=0.1, weight_decay=0.5)
    assert [group.weight_decay for group in parameter_groups(model, settings)] == [0.5]
    model.head = GaussianHead(12, 3)
    (group,) = parameter_groups(model, settings)
    assert group.weight_decay == 0
    assert set(group.names) == {"head.means", "head.log_diagonal", "head.lower"}


@every_covariance
@pytest.mark.parametrize("scale", [1, 1e3, 1e8])
def test_evaluation_never_names_a_class_without_images(
    covariance: Covariance, scale: float
) -> None:
    features, labels = clusters(60, N_FEATURES, 3, seed=0)
    labels[labels == 1] = 3
    head = GaussianHead(N_FEATURES, N_CLASSES, covariance=covariance)
    head.start_from(features, labels, ridge=1e-3)
    # Around the mean of all features, which is the empty class's, near and very far.
    near = torch.randn(200, N_FEATURES, generator=torch.Generator().manual_seed(1))
    given = (features.mean(dim=0) + scale * near).float()
    with torch.no_grad():
        trained, found = head(given), head.eval()(given)
    kept = [0, 2, 3]
    if scale == 1:
        assert bool((trained.argmax(dim=1) == 1).any())
    assert torch.equal(found[:, kept], trained[:, kept])
    assert bool(torch.isfinite(found).all())
    assert not bool((found.argmax(dim=1) == 1).any())
    expected = torch.softmax(found[:, kept], dim=1)
    torch.testing.assert_close(torch.softmax(found, dim=1)[:, kept], expected)
    energy = torch.logsumexp(found[:, kept], dim=1)
    torch.testing.assert_close(torch.logsumexp(found, dim=1), energy)


# An exported graph.


class Flat(nn.Module):
    """Every pixel is a feature."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def flat_classifier(
    covariance: Covariance, *, side: int = 4, empty: int | None = None
) -> Classifier:
    size = 3 * side * side
    features, labels = clusters(120, size, 5, seed=3)
    if empty is not None:
        labels[labels == empty] = (empty + 1) % 5
    model = Classifier(Flat(), size, 5)
    model.head = GaussianHead(size, 5, covariance=covariance)
    model.head.start_from(0.3 * features, labels, ridge=1e-3)
    return model


@pytest.mark.parametrize(("covariance", "mode"), [("full", False), ("diag", True)])
def test_the_exported_logits_are_those_of_training_and_evaluation(
    covariance: Covariance, mode: bool
) -> None:
    model = flat_classifier(covariance).train(mode)
    with torch.no_grad():
        # After the mode was set: the exporter must not take L as it was then.
        assert isinstance(model.head, GaussianHead)
        model.head.log_diagonal.add_(0.1)
    graph = export_graph(model, {"energy": Energy()}, _spec())
    session = onnxruntime.InferenceSession(graph.content)
    images = np.random.default_rng(0).integers(256, size=(9, 4, 4, 3), dtype=np.uint8)
    logits, energy = session.run(["logits", "energy"], {"image": images})
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = model((pixels - 0.5) / 0.25).numpy()
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(energy, Energy()(torch.empty(0), torch.from_numpy(logits)), 1e-5)
    assert "inverse" not in model.state_dict()


@every_covariance
def test_an_exported_graph_never_names_a_class_without_images(covariance: Covariance) -> None:
    model = flat_classifier(covariance, empty=2).train()
    graph = export_graph(model, {"energy": Energy()}, _spec())
    session = onnxruntime.InferenceSession(graph.content)
    images = np.random.default_rng(0).integers(256, size=(64, 4, 4, 3), dtype=np.uint8)
    logits, energy = session.run(["logits", "energy"], {"image": images})
    kept = [0, 1, 3, 4]
    assert np.isfinite(logits).all()
    assert (logits[:, 2] <= logits[:, kept].min(axis=1) - 9e3).all()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = model.train()((pixels - 0.5) / 0.25).numpy()
    np.testing.assert_allclose(logits[:, kept], expected[:, kept], rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(energy, logsumexp(logits[:, kept].astype(float), axis=1), rtol=1e-4)


def _spec() -> InputSpec:
    size = Preprocessing(
        height=4, width=4, resize="exact", resize_height=4, resize_width=4, interpolation="bilinear"
    )
    return InputSpec(preprocessing=size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@every_covariance
def test_training_frees_what_only_exporting_needs(covariance: Covariance) -> None:
    head = head_of(covariance).eval()
    factor = head.factor().detach()
    identity = factor @ head.inverse if covariance == "full" else torch.diag(factor * head.inverse)
    torch.testing.assert_close(identity, torch.eye(N_FEATURES, dtype=torch.float64))
    again = copy.deepcopy(head)
    assert torch.equal(again.inverse, head.inverse)
    assert head.train().inverse.shape == (0,)
