"""The Gram score against loops over full Gram matrices in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.method import Embedded
from train.networks.classifier import STAGES, Classifier, Maps
from train.scorers.gram import Gram, GramSettings, gram_vectors
from train.scorers.registry import build_scorer
from train.scorers.scorer import FitData, MapsBatch

K, CHANNELS, SIDES = 4, (2, 3, 4, 5), (6, 4, 3, 2)
Array = NDArray[np.floating[Any]]


def maps_of(count: int, *, seed: int, scale: float = 1.0) -> Maps:
    """Stage maps of both signs, so that odd and even powers differ."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        scale * torch.randn(count, channels, side, side + 1, generator=generator)
        for channels, side in zip(CHANNELS, SIDES, strict=True)
    )


def logits_of(count: int, *, seed: int, never: int | None = None) -> Tensor:
    logits = 3 * torch.randn(count, K, generator=torch.Generator().manual_seed(seed + 100))
    if never is not None:
        logits[:, never] = -50
    return logits


def fit_data(
    *, train: int = 90, size: int = 16, never: int | None = 2, validation_scale: float = 1.2
) -> FitData:
    """Training maps in batches; class `never` is predicted for none of them."""

    def batches(count: int, seed: int, scale: float, chunk: int) -> Iterator[MapsBatch]:
        maps, logits = (
            maps_of(count, seed=seed, scale=scale),
            logits_of(count, seed=seed, never=never),
        )
        labels = torch.arange(count) % K
        for start in range(0, count, chunk):
            rows = slice(start, start + chunk)
            yield MapsBatch(tuple(part[rows] for part in maps), logits[rows], labels[rows])

    nothing = Embedded(torch.zeros(1, 5), torch.zeros(1, K), torch.zeros(1, dtype=torch.int64))
    return FitData(
        Classifier(nn.Identity(), 5, K), nothing, nothing,
        lambda: batches(train, 0, 1.0, size), lambda: batches(40, 1, validation_scale, 7), seed=0,
    )  # fmt: skip


def by_hand(stage_map: Tensor, orders: Sequence[int]) -> Array:
    """(N, P, C) from the Gram matrices themselves."""
    found = []
    for image in stage_map.double().numpy():
        rows = []
        for order in orders:
            powers = image.reshape(len(image), -1) ** order
            sums = (powers @ powers.T).sum(axis=1)
            rows.append(np.sign(sums) * np.abs(sums) ** (1 / order))
        found.append(rows)
    return np.array(found)


def deviations(
    maps: Maps, logits: Tensor, low: list[Array], high: list[Array], orders: Sequence[int]
) -> Array:
    """(N, L), each over the image's largest softmax probability."""
    predicted = logits.argmax(dim=1).numpy()
    certain = torch.softmax(logits.double(), dim=1).amax(dim=1).numpy()
    found = np.zeros((len(predicted), len(maps)))
    for stage, stage_map in enumerate(maps):
        for image, vectors in enumerate(by_hand(stage_map, orders)):
            for place, bottom, top in zip(
                np.ndindex(vectors.shape), low[stage][predicted[image]].ravel(),
                high[stage][predicted[image]].ravel(), strict=True,
            ):  # fmt: skip
                if vectors[place] < bottom:
                    found[image, stage] += (bottom - vectors[place]) / (abs(bottom) + 1e-6)
                if vectors[place] > top:
                    found[image, stage] += (vectors[place] - top) / (abs(top) + 1e-6)
    scaled: Array = found / certain[:, np.newaxis]
    return scaled


def joined(batches: Iterator[MapsBatch]) -> tuple[Maps, Tensor]:
    parts = list(batches)
    maps = tuple(torch.cat([part.maps[stage] for part in parts]) for stage in range(len(STAGES)))
    return maps, torch.cat([part.logits for part in parts])


def expected_scores(
    data: FitData, maps: Maps, logits: Tensor, *, orders: Sequence[int], quantile: float
) -> Array:
    train, train_logits = joined(data.train_maps())
    predicted = train_logits.argmax(dim=1).numpy()
    low, high = [], []
    for stage_map in train:
        vectors = by_hand(stage_map, orders)
        chosen = [
            vectors[predicted == label] if (predicted == label).any() else vectors
            for label in range(K)
        ]
        low.append(np.array([np.quantile(rows, quantile, axis=0) for rows in chosen]))
        high.append(np.array([np.quantile(rows, 1 - quantile, axis=0) for rows in chosen]))
    held_out = deviations(*joined(data.validation_maps()), low, high, orders).mean(axis=0)
    scores: Array = -(deviations(maps, logits, low, high, orders) / held_out).sum(axis=1)
    return scores


@pytest.mark.parametrize("orders", [(1,), (2, 3), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("quantile", [0.0, 0.1])
def test_equals_its_definition(orders: tuple[int, ...], quantile: float) -> None:
    data = fit_data()
    scorer = Gram(GramSettings(orders=orders, quantile=quantile))
    scorer.fit(data)
    # Predicted as every class, the one that training images never were among them.
    maps, logits = maps_of(12, seed=7, scale=1.5), 3 * torch.eye(K).repeat(3, 1)
    expected = expected_scores(data, maps, logits, orders=orders, quantile=quantile)
    assert (expected < 0).any()
    np.testing.assert_allclose(scorer(maps, logits).double().numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("order", [1, 2, 7, 10])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_no_power_overflows_or_vanishes(order: int, scale: float) -> None:
    stage_map = maps_of(5, seed=3, scale=scale)[2]
    actual = gram_vectors(stage_map, (order,)).double().numpy()
    np.testing.assert_allclose(actual, by_hand(stage_map, (order,)), rtol=1e-3)


def test_half_precision_is_raised_to_powers_in_single() -> None:
    stage_map = maps_of(5, seed=3, scale=100)[2].half()
    actual = gram_vectors(stage_map, (10,))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, gram_vectors(stage_map.float(), (10,)))


def test_a_channel_without_activation_is_zero_in_every_order() -> None:
    stage_map = maps_of(2, seed=3)[2]
    stage_map[:, 1] = 0
    vectors = gram_vectors(stage_map, (1, 2, 3))
    assert bool((vectors[:, :, 1] == 0).all())
    assert bool(torch.isfinite(gram_vectors(torch.zeros_like(stage_map), (1, 10))).all())


def test_training_images_do_not_deviate() -> None:
    data, scorer = fit_data(), Gram()
    scorer.fit(data)
    maps, logits = joined(data.train_maps())
    assert bool((scorer(maps, logits) == 0).all())
    narrower = Gram(GramSettings(quantile=0.2))
    narrower.fit(data)
    assert bool((narrower(maps, logits) < 0).any())


def test_the_ranges_do_not_depend_on_the_batches() -> None:
    small, large = Gram(), Gram()
    small.fit(fit_data(size=5))
    large.fit(fit_data(size=90))
    for key, value in small.state_dict().items():
        torch.testing.assert_close(value, large.state_dict()[key], rtol=1e-5, atol=0)


@pytest.mark.parametrize("quantile", [0.0, 0.1])
def test_a_class_that_is_never_predicted_has_the_range_of_all(quantile: float) -> None:
    scorer = Gram(GramSettings(orders=(2,), quantile=quantile))
    scorer.fit(fit_data(never=2))
    vectors = gram_vectors(maps_of(90, seed=0)[3], (2,)).numpy()
    for bound, share in (("low", quantile), ("high", 1 - quantile)):
        learned = scorer.get_buffer(f"{bound}_layer4")
        assert bool(torch.isfinite(learned).all())
        expected = np.quantile(vectors, share, axis=0)
        np.testing.assert_allclose(learned[2].numpy(), expected, rtol=1e-4)
        assert not np.allclose(learned[1].numpy(), expected)


def test_a_stage_in_which_no_validation_image_deviates_is_not_rescaled() -> None:
    data = fit_data()
    scorer = Gram(GramSettings(orders=(1,)))
    # The training images themselves: none deviates anywhere.
    scorer.fit(
        FitData(data.model, data.train, data.train, data.train_maps, data.train_maps, seed=0)
    )
    assert scorer.typical.tolist() == [1.0] * len(STAGES)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"orders": [0]}, r"`orders\.0` = 0"),
        ({"orders": [11]}, r"`orders\.0` = 11"),
        ({"orders": []}, r"`orders` = \[\]"),
        ({"orders": [2, 2]}, r"`orders` = \[2, 2\]: value error, name each order once"),
        ({"quantile": 0.5}, r"`quantile` = 0\.5"),
        ({"quantile": -0.1}, r"`quantile` = -0\.1"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_scorer("gram", knobs)
