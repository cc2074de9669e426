"""The scores that look at features, against float64 definitions and second implementations."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor, nn

import train.vision  # noqa: F401 (makes torchvision importable, which pytorch-ood needs)
from oodserve.errors import RecipeError
from tests.linear_head import (
    Array,
    D,
    K,
    N,
    data_of,
    energy,
    features_of,
    fitted,
    head,
    head_weights,
    logits_of,
    score,
)
from train.methods.method import Embedded
from train.scorers.ash import AshB, AshBSettings, AshS, AshSSettings, largest
from train.scorers.bank import bank_rows, unit_length
from train.scorers.scale import Scale, ScaleSettings
from train.scorers.she import class_patterns

# isort: split
from pytorch_ood.detector import ASH, DICE, NCI, SCALE, SHE, NNGuide, ReAct, fDBD

TRAIN, TEST = features_of(N, seed=2), features_of(40, seed=4)
GIVEN = torch.from_numpy(TEST).float()
LABELS = torch.zeros(N, dtype=torch.int64)
MAPS = GIVEN[:, :, None, None]


def pooled_head(maps: Tensor) -> Tensor:
    logits: Tensor = head()(maps.flatten(1))
    return logits


# --- features reshaped before the head -----------------------------------------------------------


def test_hand_computed_reshaping() -> None:
    # 40 % of 5 pruned: the 3 largest, 1, 2 and 4, are kept of a sum of 8.
    features = torch.tensor([[4.0, 0.5, 1.0, 2.0, 0.5]])
    kept = [[True, False, True, True, False]]
    assert largest(features, percentile=40).tolist() == kept
    shaped = {
        "ash_b": AshB(AshBSettings(percentile=40)).reshape(features),
        "ash_s": AshS(AshSSettings(percentile=40)).reshape(features),
        "scale": Scale(ScaleSettings(percentile=40)).reshape(features),
    }
    third = 8 / 3
    torch.testing.assert_close(shaped["ash_b"], torch.tensor([[third, 0, third, third, 0]]))
    factor = math.exp(8 / 7)
    sharp = torch.tensor([[4 * factor, 0, factor, 2 * factor, 0]])
    torch.testing.assert_close(shaped["ash_s"], sharp)
    torch.testing.assert_close(shaped["scale"], features * factor)


@pytest.mark.parametrize("percentile", [10.0, 50.0, 90.0, 100.0])
def test_react_equals_its_definition_and_another_library(percentile: float) -> None:
    scorer = fitted("react", data_of(TRAIN), percentile=percentile)
    bound = np.percentile(TRAIN, percentile)
    actual = score(scorer, TEST)
    np.testing.assert_allclose(actual, energy(np.minimum(TEST, bound)), rtol=1e-5)
    other = ReAct(lambda maps: maps, pooled_head, percentile=percentile / 100)
    other.fit_feature_maps(torch.from_numpy(TRAIN).float()[:, :, None, None], LABELS)
    np.testing.assert_allclose(actual, -other.predict_feature_maps(MAPS).numpy(), rtol=1e-5)


@pytest.mark.parametrize("percentile", [0.0, 65.0, 85.0, 97.0])
@pytest.mark.parametrize(("name", "variant"), [("ash_b", "ash-b"), ("ash_s", "ash-s")])
def test_ash_equals_another_library(name: str, variant: str, percentile: float) -> None:
    # The other fills features of 0 as well where fewer than it keeps are positive; so none is 0.
    features = TEST + 0.01
    maps = torch.from_numpy(features).float()[:, :, None, None]
    other = ASH(lambda given: given, pooled_head, variant=variant, percentile=percentile / 100)
    actual = score(fitted(name, data_of(TRAIN), percentile=percentile), features)
    np.testing.assert_allclose(actual, -other.predict_feature_maps(maps).numpy(), rtol=2e-5)


@pytest.mark.parametrize("percentile", [0.0, 65.0, 85.0])
def test_shaping_equals_its_definition(percentile: float) -> None:
    count = D - round(D * percentile / 100)
    for name in ("ash_b", "ash_s", "scale"):
        shaped = []
        for row in TEST:
            kept = np.zeros(D, bool)
            kept[np.argsort(-row, kind="stable")[:count]] = True
            kept &= row > 0
            factor = math.exp(row.sum() / row[kept].sum())
            shaped.append({"ash_b": kept * row.sum() / kept.sum(), "ash_s": kept * row * factor,
                           "scale": row * factor}[name])  # fmt: skip
        actual = score(fitted(name, data_of(TRAIN), percentile=percentile), TEST)
        np.testing.assert_allclose(actual, energy(np.array(shaped)), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("percentile", [65.0, 85.0])
def test_scale_equals_another_library(percentile: float) -> None:
    other = SCALE(lambda maps: maps, pooled_head, percentile=percentile / 100)
    actual = score(fitted("scale", data_of(TRAIN), percentile=percentile), TEST)
    np.testing.assert_allclose(actual, -other.predict_feature_maps(MAPS).numpy(), rtol=2e-5)


def test_equal_features_are_kept_together() -> None:
    features = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, 3.0, -1.0]])
    # One of each is asked for.
    assert largest(features, percentile=75).tolist() == [
        [True, True, True, False],
        [False, False, False, False],
        [False, False, True, False],
    ]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_dice_equals_its_definition_and_another_library(sparsity: float) -> None:
    weight, bias = head_weights()
    scorer = fitted("dice", data_of(TRAIN), sparsity=sparsity)
    contributions = weight * TRAIN.mean(axis=0)
    kept = np.argsort(contributions, axis=None)[round(sparsity * K * D) :]
    masked = np.zeros(K * D)
    masked[kept] = weight.flat[kept]
    actual = score(scorer, TEST)
    np.testing.assert_allclose(actual, energy(TEST, masked.reshape(K, D)), rtol=1e-5)
    if sparsity:  # The other drops the smallest weight in any case.
        other = DICE(None, torch.from_numpy(weight).float(), torch.from_numpy(bias).float(),
                     sparsity)  # fmt: skip
        other.fit_features(torch.from_numpy(TRAIN).float(), LABELS)
        np.testing.assert_allclose(actual, -other.predict_features(GIVEN).numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["react", "ash_b", "ash_s", "scale", "dice"])
def test_the_head_sees_features_that_no_norm_touched(name: str) -> None:
    plain = fitted(name, data_of(TRAIN))
    standardised = fitted(name, data_of(TRAIN, norm="zscore"))
    np.testing.assert_array_equal(score(standardised, TEST), score(plain, TEST))


@pytest.mark.parametrize("name", ["react", "ash_b", "ash_s", "scale", "dice", "fdbd", "nci"])
def test_a_head_that_is_not_linear_is_refused(name: str) -> None:
    data = data_of(TRAIN)
    data.model.head = nn.Sequential(head())
    with pytest.raises(RecipeError, match=f"score `{name}` needs a linear head, .* `Sequential`"):
        fitted(name, data)


# --- patterns of the classes ---------------------------------------------------------------------


def test_she_equals_its_definition_and_another_library() -> None:
    labels = logits_of(TRAIN).argmax(axis=1)
    labels[::7] = (labels[::7] + 1) % K  # Some images that are classified wrongly.
    correct = labels == logits_of(TRAIN).argmax(axis=1)
    patterns = np.array([TRAIN[correct & (labels == k)].mean(axis=0) for k in range(K)])
    expected = (TEST * patterns[logits_of(TEST).argmax(axis=1)]).sum(axis=1)
    actual = score(fitted("she", data_of(TRAIN, labels=labels)), TEST)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    other = SHE(None, head()).fit_features(torch.from_numpy(TRAIN).float(), torch.tensor(labels))
    np.testing.assert_allclose(actual, -other.predict_features(GIVEN).numpy(), rtol=1e-5)


def test_a_class_without_right_images_or_without_any_has_a_pattern() -> None:
    features = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 6.0], [0.0, 3.0]])
    # Of class 0 the first is right; class 1 has none right; class 2 has no image.
    logits = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    embedded = Embedded(features, logits, torch.tensor([0, 0, 1, 1]))
    expected = torch.tensor([[2.0, 0.0], [0.0, 4.5], [1.5, 2.25]])
    torch.testing.assert_close(class_patterns(embedded, n_classes=3), expected)


# --- banks of training images --------------------------------------------------------------------


def cosines(features: Array, bank: Array) -> Array:
    norms = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(bank, axis=1)
    return np.asarray(features @ bank.T / norms)


def test_a_bank_is_drawn_by_its_seed_without_repeats() -> None:
    rows = bank_rows(100, most=30, seed=5)
    assert len(set(rows.tolist())) == 30
    assert rows.tolist() == sorted(rows.tolist())
    assert torch.equal(rows, bank_rows(100, most=30, seed=5))
    assert not torch.equal(rows, bank_rows(100, most=30, seed=6))
    assert bank_rows(30, most=30, seed=5).tolist() == list(range(30))


def test_features_of_any_size_are_scaled_to_length_1() -> None:
    features = torch.tensor([[3.0, 4.0], [3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.0, 0.0]])
    torch.testing.assert_close(unit_length(features), expected)


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_nnguide_equals_its_definition_and_another_library(k: int) -> None:
    scorer = fitted("nnguide", data_of(TRAIN), k=k, alpha=1.0)
    guided = np.sort(cosines(TEST, TRAIN) * energy(TRAIN), axis=1)[:, -k:].mean(axis=1)
    actual = score(scorer, TEST)
    np.testing.assert_allclose(actual, guided * energy(TEST), rtol=2e-5)
    other = NNGuide(None, head(), k=min(k, N)).fit_features(torch.from_numpy(TRAIN).float(), LABELS)
    np.testing.assert_allclose(actual, -other.predict_features(GIVEN).numpy(), rtol=2e-5)


@pytest.mark.parametrize(("alpha", "smallest", "rows"), [(0.5, 10, 60), (0.01, 30, 30)])
def test_nnguides_bank_is_a_share_of_the_images(alpha: float, smallest: int, rows: int) -> None:
    scorer = fitted("nnguide", data_of(TRAIN), k=3, alpha=alpha, smallest_bank=smallest)
    assert scorer.get_buffer("bank").shape == (D, rows)
    kept = TRAIN[bank_rows(N, most=rows, seed=3).numpy()]
    guided = np.sort(cosines(TEST, kept) * energy(kept), axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(score(scorer, TEST), guided * energy(TEST), rtol=2e-5)


def test_the_bank_changes_with_the_runs_seed() -> None:
    data = data_of(TRAIN)
    for name, knobs in (("nnguide", {"smallest_bank": 20}), ("relation", {"bank": 20})):
        first = fitted(name, data, **knobs).get_buffer("bank")
        again = fitted(name, data, **knobs).get_buffer("bank")
        other = fitted(name, dataclasses.replace(data, seed=4), **knobs).get_buffer("bank")
        assert torch.equal(first, again)
        assert first.shape == other.shape == (D, 20)
        assert not torch.equal(first, other)


@pytest.mark.parametrize(("power", "threshold", "rows"), [(1, 0.03, N), (4, 0.0, N), (2, 0.3, 25)])
def test_relation_equals_its_definition(power: float, threshold: float, rows: int) -> None:
    scorer = fitted("relation", data_of(TRAIN), power=power, threshold=threshold, bank=rows)
    kept = TRAIN[bank_rows(N, most=rows, seed=3).numpy()]
    p, known = softmax(logits_of(TEST), axis=1), softmax(logits_of(kept), axis=1)
    relations = np.maximum(cosines(TEST, kept), 0) * (p @ known.T)
    expected = np.where(relations > threshold, relations**power, 0).mean(axis=1)
    np.testing.assert_allclose(score(scorer, TEST), expected, rtol=2e-5)


# --- the head's geometry -------------------------------------------------------------------------


def test_fdbd_equals_its_definition_and_another_library() -> None:
    weight, _ = head_weights()
    logits, centre = logits_of(TEST), TRAIN.mean(axis=0)
    expected = []
    for row, z in zip(TEST, logits, strict=True):
        top = z.argmax()
        distances = [abs(z[top] - z[k]) / np.linalg.norm(weight[top] - weight[k])
                     for k in range(K) if k != top]  # fmt: skip
        expected.append(np.mean(distances) / np.linalg.norm(row - centre))
    actual = score(fitted("fdbd", data_of(TRAIN)), TEST)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    # It states the mean as well, though others take the sum.
    other = fDBD(None, head()).fit_features(torch.from_numpy(TRAIN).float())
    np.testing.assert_allclose(actual, -other.predict_features(GIVEN).numpy(), rtol=1e-5)


def test_classes_of_equal_weights_have_no_boundary() -> None:
    data = data_of(TRAIN)
    assert isinstance(data.model.head, nn.Linear)
    data.model.head.weight[1] = data.model.head.weight[0]
    scorer = fitted("fdbd", data)
    inverse = scorer.get_buffer("inverse")
    assert bool(torch.isfinite(inverse).all())
    assert float(inverse[0, 1]) == float(inverse[1, 0]) == float(inverse[2, 2]) == 0.0
    assert np.isfinite(score(scorer, TEST)).all()
    assert np.isfinite(score(scorer, TRAIN.mean(axis=0, keepdims=True))).all()


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_nci_equals_its_definition_and_another_library(alpha: float) -> None:
    weight, _ = head_weights()
    centred = TEST - TRAIN.mean(axis=0)
    chosen = weight[logits_of(TEST).argmax(axis=1)]
    likeness = (centred * chosen).sum(axis=1) / np.linalg.norm(centred, axis=1)
    actual = score(fitted("nci", data_of(TRAIN), alpha=alpha), TEST)
    expected = likeness + alpha * np.abs(TEST).sum(axis=1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    other = NCI(None, head(), alpha=alpha).fit_features(torch.from_numpy(TRAIN).float())
    np.testing.assert_allclose(actual, -other.predict_features(GIVEN).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["nnguide", "relation", "fdbd", "nci", "she"])
def test_with_a_norm_features_are_raw_and_logits_are_the_models(name: str) -> None:
    data = data_of(TRAIN, norm="zscore")
    logits = data.model.logits_from(GIVEN).double().numpy()
    scorer = fitted(name, data)
    whole = score(scorer, TEST, logits)
    assert np.isfinite(whole).all()
    # The buffers come from features as they are: their mean, direction or pattern.
    plain = fitted(name, data_of(TRAIN))
    if name in ("fdbd", "nci"):
        assert torch.equal(scorer.get_buffer("centre"), plain.get_buffer("centre"))
    if name == "relation":
        assert torch.equal(scorer.get_buffer("bank"), plain.get_buffer("bank"))
        given = torch.softmax(data.train.logits, dim=1).T
        torch.testing.assert_close(scorer.get_buffer("probabilities"), given)
    assert not np.allclose(whole, score(plain, TEST))
