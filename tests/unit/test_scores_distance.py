"""Distances and subspaces against float64 derivations, scikit-learn and pytorch-ood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import TruncatedSVD
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

# Before pytorch-ood, which imports torchvision and does not repair it.
import train.vision  # noqa: F401
from oodserve.errors import DataError, RecipeError
from train.methods.method import Embedded
from train.networks.classifier import STAGES, Classifier
from train.scorers.knn import Knn, KnnSettings
from train.scorers.mahalanobis import Mahalanobis
from train.scorers.registry import build_scorer
from train.scorers.scorer import FitData, MapsBatch, Scorer
from train.scorers.vim import Vim, VimSettings, _authors_dim

# isort: split
from pytorch_ood import detector as detectors

N, D, K = 240, 6, 4
Array = NDArray[np.floating[Any]]


def toy(
    *, n: int = N, d: int = D, absent: tuple[int, ...] = (), maps: bool = False, seed: int = 0
) -> FitData:
    """Features of K correlated clusters, a linear head, and maps of four widths."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    labels = rng.integers(0, K, n)
    for label in absent:
        labels[labels == label] = (label + 1) % K
    mixing = rng.normal(size=(d, d))
    features = rng.normal(size=(n, d)) @ mixing + 3 * rng.normal(size=(K, d))[labels] + 5
    model = Classifier(nn.Identity(), d, K).eval().requires_grad_(requires_grad=False)
    values = torch.from_numpy(features).float()
    train = Embedded(values, model.logits_from(values), torch.from_numpy(labels))

    def batches() -> Iterator[MapsBatch]:
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, n, 32):
            own = train.labels[start : start + 32]
            stages = tuple(
                torch.randn(len(own), 3 + stage, 4, 5, generator=generator)
                + own.reshape(-1, 1, 1, 1)
                for stage in range(len(STAGES))
            )
            yield MapsBatch(stages, train.logits[start : start + 32], own)

    return FitData(model, train, train, batches, batches, seed=seed)


def queries(count: int = 50, *, d: int = D, seed: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(5, 6, size=(count, d))).float()


def fitted(name: str, data: FitData, **knobs: object) -> Scorer:
    scorer = build_scorer(name, knobs)
    scorer.fit(data)
    return scorer


def scored(scorer: Scorer, features: Tensor) -> Array:
    values: Array = scorer(features, torch.zeros(len(features), K)).double().numpy()
    return values


def arrays(data: FitData) -> tuple[Array, NDArray[np.int64]]:
    return data.train.features.double().numpy(), data.train.labels.numpy()


def within(features: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
    """The means of the classes there are, and the features around them."""
    present = np.unique(labels)
    means = np.stack([features[labels == label].mean(axis=0) for label in present])
    return means, features - means[np.searchsorted(present, labels)]


def squared_distances(points: Array, means: Array, precision: Array) -> Array:
    """One by one, from the definition: (n, number of means)."""
    return np.array([[(p - m) @ precision @ (p - m) for m in means] for p in points])


# --- Mahalanobis ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [0.0, 1e-4, 0.3, 1.0])
@pytest.mark.parametrize("absent", [(), (2,)])
def test_mahalanobis_equals_its_definition(shrinkage: float, absent: tuple[int, ...]) -> None:
    data = toy(absent=absent)
    features, labels = arrays(data)
    means, centred = within(features, labels)
    covariance = centred.T @ centred / N
    drawn = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / D * np.eye(D)
    points = queries()
    expected = -squared_distances(points.double().numpy(), means, np.linalg.inv(drawn)).min(axis=1)
    actual = scored(fitted("mahalanobis", data, shrinkage=shrinkage), points)
    np.testing.assert_allclose(actual, expected, rtol=2e-5)


def test_mahalanobis_agrees_with_scikit_learn_and_pytorch_ood() -> None:
    data, points = toy(), queries()
    features, labels = arrays(data)
    means, centred = within(features, labels)
    actual = scored(fitted("mahalanobis", data, shrinkage=0), points)
    oracle = EmpiricalCovariance(assume_centered=True).fit(centred)
    each = [oracle.mahalanobis(points.double().numpy() - mean) for mean in means]
    np.testing.assert_allclose(actual, -np.min(each, axis=0), rtol=2e-5)
    other = detectors.Mahalanobis(None).fit_features(data.train.features, data.train.labels)
    # It inverts the scatter, which is N times the covariance, and halves the result.
    halved = other.predict_features(points).double().numpy()
    np.testing.assert_allclose(actual, -halved * 2 * N, rtol=1e-3)


def test_few_images_are_judged_in_the_directions_they_span() -> None:
    data = toy(n=12, d=20)
    features, labels = arrays(data)
    means, centred = within(features, labels)
    precision = np.linalg.pinv(centred.T @ centred / 12, rcond=1e-8, hermitian=True)
    points = queries(d=20)
    scorer = fitted("mahalanobis", data, shrinkage=0)
    assert scorer.get_buffer("whitening").shape == (20, 12 - len(means))
    expected = -squared_distances(points.double().numpy(), means, precision).min(axis=1)
    np.testing.assert_allclose(scored(scorer, points), expected, rtol=1e-3)
    drawn = fitted("mahalanobis", data, shrinkage=0.01)
    assert drawn.get_buffer("whitening").shape == (20, 20)
    assert np.isfinite(scored(drawn, points)).all()


def test_a_distance_keeps_its_digits_far_from_zero() -> None:
    data = toy()
    far = 10_000.0
    moved = FitData(
        data.model,
        Embedded(data.train.features + far, data.train.logits, data.train.labels),
        data.validation, data.train_maps, data.validation_maps, seed=0,
    )  # fmt: skip
    near = scored(fitted("mahalanobis", data), queries())
    # Of the features themselves 1 in 10^7 of 10 000 is lost, 10^-3.
    np.testing.assert_allclose(
        scored(fitted("mahalanobis", moved), queries() + far), near, rtol=1e-2
    )


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_features_that_do_not_vary_are_refused(name: str) -> None:
    data = toy()
    same = Embedded(torch.ones(N, D), data.train.logits, data.train.labels)
    constant = FitData(data.model, same, same, data.train_maps, data.validation_maps, seed=0)
    with pytest.raises(DataError, match=f"`{name}` cannot be fitted on 240 images: .* do not vary"):
        fitted(name, constant)


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1])
def test_an_impossible_shrinkage_is_refused(shrinkage: float) -> None:
    with pytest.raises(RecipeError, match=r"`mahalanobis` have faults: `shrinkage` = "):
        build_scorer("mahalanobis", {"shrinkage": shrinkage})


@pytest.mark.parametrize("absent", [(), (0, 3)])
def test_relative_mahalanobis_equals_its_definition(absent: tuple[int, ...]) -> None:
    data, points = toy(absent=absent), queries()
    features, labels = arrays(data)
    means, centred = within(features, labels)
    middle = features.mean(axis=0, keepdims=True)
    exact = points.double().numpy()
    own = squared_distances(exact, means, np.linalg.inv(centred.T @ centred / N))
    total = np.linalg.inv(np.cov(features.T, bias=True))
    shared = squared_distances(exact, middle, total)
    actual = scored(fitted("relative_mahalanobis", data, shrinkage=0), points)
    np.testing.assert_allclose(actual, -(own - shared).min(axis=1), rtol=1e-4, atol=1e-4)


def test_relative_mahalanobis_orders_images_as_pytorch_ood_does() -> None:
    data, points = toy(), queries()
    other = detectors.RMD(None).fit_features(data.train.features, data.train.labels)
    theirs = other.predict_features(points).numpy()
    ours = scored(fitted("relative_mahalanobis", data, shrinkage=0), points)
    np.testing.assert_array_equal(np.argsort(-theirs), np.argsort(ours))


@pytest.mark.parametrize("absent", [(), (1,)])
def test_mahalanobis_layers_sums_the_stages(absent: tuple[int, ...]) -> None:
    data = toy(absent=absent)
    whole = list(data.train_maps())
    labels = np.concatenate([batch.labels.numpy() for batch in whole])
    images = [torch.randn(9, 3 + stage, 4, 5) * 2 for stage in range(len(STAGES))]
    expected = np.zeros(9)
    for stage, image in enumerate(images):
        pooled = np.concatenate(
            [batch.maps[stage].double().numpy().mean(axis=(2, 3)) for batch in whole]
        )
        means, centred = within(pooled, labels)
        precision = np.linalg.inv(centred.T @ centred / N)
        points = image.double().numpy().mean(axis=(2, 3))
        expected -= squared_distances(points, means, precision).min(axis=1)
    scorer = fitted("mahalanobis_layers", data, shrinkage=0)
    actual = scorer(tuple(images), torch.zeros(9, K)).double().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


# --- ViM -----------------------------------------------------------------------------------------


def test_vim_equals_its_definition() -> None:
    data, points = toy(), queries()
    features, _ = arrays(data)
    weight, bias = (part.double().numpy() for part in data.linear_head("test"))
    origin = -np.linalg.pinv(weight) @ bias
    # The principal directions of the features around the origin, from another decomposition.
    main = TruncatedSVD(n_components=2, algorithm="arpack").fit(features - origin).components_

    def left(rows: Array) -> Array:
        moved = rows - origin
        length: Array = np.linalg.norm(moved - moved @ main.T @ main, axis=1)
        return length

    logits = features @ weight.T + bias
    alpha = logits.max(axis=1).sum() / left(features).sum()
    exact = points.double().numpy()
    outer = exact @ weight.T + bias
    expected = np.log(np.exp(outer).sum(axis=1)) - alpha * left(exact)
    scorer = fitted("vim", data, dim=2)
    actual = scorer(points, data.model.logits_from(points)).double().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    other = detectors.ViM(None, 2, *data.linear_head("test"))
    theirs = other.fit_features(data.train.features, data.train.labels).predict_features(points)
    np.testing.assert_allclose(actual, -theirs.double().numpy(), rtol=1e-3, atol=1e-3)


def test_the_virtual_logit_is_as_large_as_the_largest_on_average() -> None:
    data = toy()
    scorer = fitted("vim", data)
    logits = data.train.logits
    virtual = torch.logsumexp(logits, dim=1) - scorer(data.train.features, logits)
    assert float(virtual.mean()) == pytest.approx(float(logits.amax(dim=1).mean()), rel=1e-4)


def test_vims_authors_choose_the_dimension_by_the_number_of_features() -> None:
    chosen = {size: _authors_dim(size) for size in (6, 512, 768, 1024, 2048, 4096)}
    assert chosen == {6: 3, 512: 256, 768: 512, 1024: 512, 2048: 1000, 4096: 1000}
    scorer = Vim()
    scorer.fit(toy())
    assert scorer.residual.shape == (D, 3)


def test_vim_refuses_what_leaves_no_residual() -> None:
    with pytest.raises(RecipeError, match=r"`scorers.vim.dim` = 6 leaves nothing of 6 features"):
        Vim(VimSettings(dim=6)).fit(toy())
    with pytest.raises(DataError, match=r"features of 5 training images fill no more than .* = 10"):
        Vim(VimSettings(dim=10)).fit(toy(n=5, d=20))


def test_vim_needs_a_linear_head() -> None:
    data = toy()
    data.model.head = nn.Sequential(nn.Linear(D, K))
    with pytest.raises(RecipeError, match="score `vim` needs a linear head"):
        Vim().fit(data)


# --- nearest neighbours --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, N])
def test_knn_agrees_with_scikit_learn_and_pytorch_ood(k: int) -> None:
    data, points = toy(), queries()
    features, _ = arrays(data)
    actual = scored(fitted("knn", data, k=k), points)

    def unit(rows: Array) -> Array:
        scaled: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return scaled

    oracle = NearestNeighbors(n_neighbors=k).fit(unit(features))
    distances, _ = oracle.kneighbors(unit(points.double().numpy()))
    np.testing.assert_allclose(actual, -distances[:, -1], rtol=1e-5, atol=1e-6)
    other = detectors.KNN(None, k=k).fit_features(data.train.features, data.train.labels)
    theirs = other.predict_features(points).numpy()
    np.testing.assert_allclose(actual, -theirs, rtol=1e-5, atol=1e-6)


def test_a_short_distance_keeps_its_digits() -> None:
    data = toy()
    directions = data.train.features.double()
    directions /= directions.norm(dim=1, keepdim=True)
    step = 1e-3 * torch.linalg.qr(directions[:1].T, mode="complete").Q[:, 1]
    actual = scored(fitted("knn", data, k=1), (directions[:1] + step).float())
    # At right angles, so the distance is that of arctan(10^-3) on the circle, to 1 in 10^6.
    assert actual[0] == pytest.approx(-1e-3, rel=2e-4)


def test_the_bank_is_drawn_with_the_runs_seed() -> None:
    def bank(seed: int) -> Tensor:
        data = toy()
        scorer = Knn(KnnSettings(k=3, bank_size=20))
        scorer.fit(FitData(data.model, data.train, data.train, data.train_maps,
                           data.validation_maps, seed=seed))  # fmt: skip
        return scorer.bank

    assert torch.equal(bank(1), bank(1))
    assert not torch.equal(bank(1), bank(2))
    assert bank(1).shape == (20, D)
    assert len(torch.unique(bank(1), dim=0)) == 20


def test_knn_refuses_more_neighbours_than_images() -> None:
    with pytest.raises(RecipeError, match=r"`scorers.knn.k` = 21 neighbours .* among 20 images"):
        fitted("knn", toy(), k=21, bank_size=20)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_knn_sees_the_direction_alone(size: float) -> None:
    scorer, points = fitted("knn", toy()), queries()
    np.testing.assert_allclose(scored(scorer, points * size), scored(scorer, points), rtol=1e-4)


def test_a_zero_feature_is_at_distance_one() -> None:
    assert scored(fitted("knn", toy()), torch.zeros(1, D))[0] == pytest.approx(-1.0, abs=1e-6)


# --- all of them ---------------------------------------------------------------------------------


def test_fitting_takes_whole_features_and_leaves_them_alone() -> None:
    data = toy()
    before = data.train.features.clone()
    scorer = Mahalanobis()
    scorer.fit(data)
    for name in ("relative_mahalanobis", "vim", "knn"):
        fitted(name, data)
    assert torch.equal(data.train.features, before)
    assert {key: value.dtype for key, value in scorer.state_dict().items()} == {
        "centre": torch.float32, "whitening": torch.float32, "means": torch.float32,
    }  # fmt: skip
