"""The loss terms against NumPy, their gradients, and the identities that tie them together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, rel_entr, softmax

from train.methods.losses import (
    Distance,
    consistency,
    cross_entropy,
    divergence_from_uniform,
    soft_cross_entropy,
    uniform_cross_entropy,
    uniform_divergence,
)
from train.precision import full_precision

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, size=(6, 5))
OTHERS = RNG.normal(0, 3, size=(6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])
TARGETS = RNG.dirichlet(np.ones(5), size=6)


def tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.copy()).requires_grad_()


def test_cross_entropy_equals_its_definition() -> None:
    expected = -log_softmax(LOGITS, axis=1)[np.arange(6), LABELS].mean()
    actual = cross_entropy(tensor(LOGITS), torch.from_numpy(LABELS))
    assert float(actual.detach()) == pytest.approx(expected)


def test_soft_cross_entropy_equals_its_definition() -> None:
    expected = -(TARGETS * log_softmax(LOGITS, axis=1)).sum(axis=1).mean()
    actual = soft_cross_entropy(tensor(LOGITS), torch.from_numpy(TARGETS))
    assert float(actual.detach()) == pytest.approx(expected)


def test_soft_cross_entropy_equals_torchs_own() -> None:
    expected = torch.nn.functional.cross_entropy(tensor(LOGITS), torch.from_numpy(TARGETS))
    actual = soft_cross_entropy(tensor(LOGITS), torch.from_numpy(TARGETS))
    torch.testing.assert_close(actual, expected)


def test_soft_cross_entropy_of_one_hot_targets_is_cross_entropy() -> None:
    onehot = torch.from_numpy(np.eye(5)[LABELS])
    torch.testing.assert_close(
        soft_cross_entropy(tensor(LOGITS), onehot),
        cross_entropy(tensor(LOGITS), torch.from_numpy(LABELS)),
    )


def test_uniform_divergence_is_from_uniform_to_the_model() -> None:
    uniform = np.full((6, 5), 1 / 5)
    from_uniform = rel_entr(uniform, softmax(LOGITS, axis=1)).sum(axis=1).mean()
    to_uniform = rel_entr(softmax(LOGITS, axis=1), uniform).sum(axis=1).mean()
    actual = float(uniform_divergence(tensor(LOGITS)).detach())
    assert actual == pytest.approx(from_uniform)
    assert actual != pytest.approx(to_uniform, rel=0.1)


def test_uniform_divergence_hand_computed() -> None:
    # p = (1/4, 3/4): -ln 2 - (ln 1/4 + ln 3/4) / 2 = ln(4 / (2 sqrt 3)) = ln(2 / sqrt 3)
    logits = torch.tensor([[0.0, np.log(3)]], dtype=torch.float64)
    assert float(uniform_divergence(logits)) == pytest.approx(np.log(2 / np.sqrt(3)))
    assert float(uniform_divergence(torch.full((3, 9), 7.0))) == pytest.approx(0, abs=1e-6)


def test_outlier_exposure_is_uniform_divergence_plus_log_k() -> None:
    exposure = soft_cross_entropy(tensor(LOGITS), torch.full((6, 5), 1 / 5, dtype=torch.float64))
    difference = exposure - uniform_divergence(tensor(LOGITS))
    assert float(difference.detach()) == pytest.approx(np.log(5), abs=1e-12)


def test_cross_entropy_to_uniform_is_each_samples_divergence_plus_log_k() -> None:
    expected = -log_softmax(LOGITS, axis=1).mean(axis=1)
    exposures = uniform_cross_entropy(tensor(LOGITS)).detach().numpy()
    np.testing.assert_allclose(exposures, expected, rtol=1e-12)
    divergences = divergence_from_uniform(tensor(LOGITS)).detach().numpy()
    np.testing.assert_allclose(divergences, expected - np.log(5), rtol=1e-12)
    assert float(uniform_divergence(tensor(LOGITS)).detach()) == pytest.approx(divergences.mean())


def test_gradient_of_uniform_divergence_is_p_minus_one_over_k() -> None:
    logits = tensor(LOGITS)
    torch.autograd.backward(uniform_divergence(logits))
    assert logits.grad is not None
    # The mean over 6 samples divides each sample's gradient by 6.
    expected = (softmax(LOGITS, axis=1) - 1 / 5) / 6
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-15)


def test_uniform_divergence_of_extreme_logits_is_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    divergence = uniform_divergence(logits)
    torch.autograd.backward(divergence)
    assert float(divergence.detach()) == pytest.approx(1e4, rel=1e-3)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[2 / 3, -1 / 3, -1 / 3]]))


@pytest.mark.parametrize("distance", ["l2", "mse"])
def test_consistency_equals_its_definition(distance: Distance) -> None:
    difference = LOGITS - OTHERS
    norms = [np.sqrt(sum(value**2 for value in row)) for row in difference]
    expected = {"l2": np.mean(norms), "mse": np.mean(difference**2)}[distance]
    actual = consistency(tensor(LOGITS), tensor(OTHERS), distance=distance)
    assert float(actual.detach()) == pytest.approx(expected)


def test_consistency_hand_computed() -> None:
    # One sample 3-4-5, one equal: mean of norms 2.5; of 6 squares (9 + 16) / 6.
    left = torch.tensor([[3.0, 4.0, 0.0], [1.0, 1.0, 1.0]])
    right = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert float(consistency(left, right, distance="l2")) == pytest.approx(2.5)
    assert float(consistency(left, right, distance="mse")) == pytest.approx(25 / 6)


def test_consistency_does_not_grow_with_the_batch() -> None:
    once = consistency(tensor(LOGITS), tensor(OTHERS), distance="l2")
    thrice = consistency(
        tensor(np.tile(LOGITS, (3, 1))), tensor(np.tile(OTHERS, (3, 1))), distance="l2"
    )
    torch.testing.assert_close(once, thrice)


@pytest.mark.parametrize("distance", ["l2", "mse"])
def test_gradient_of_consistency_is_finite_where_some_rows_are_equal(distance: Distance) -> None:
    left, right = tensor(LOGITS), tensor(LOGITS)
    shifted = right + torch.tensor([[0.0]] * 5 + [[2.0]], dtype=torch.float64)
    torch.autograd.backward(consistency(left, shifted, distance=distance))
    assert left.grad is not None
    assert torch.equal(left.grad[:5], torch.zeros(5, 5, dtype=torch.float64))
    assert bool((left.grad[5] < 0).all())


@pytest.mark.parametrize("distance", ["l2", "mse"])
def test_both_sides_of_consistency_receive_gradient(distance: Distance) -> None:
    left, right = tensor(LOGITS), tensor(OTHERS)
    torch.autograd.backward(consistency(left, right, distance=distance))
    assert left.grad is not None
    assert right.grad is not None
    torch.testing.assert_close(left.grad, -right.grad)
    assert float(left.grad.abs().min()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    # 60000 fits float16, its square and the sum of two do not.
    wide = torch.tensor([[60000.0, 60000.0]]).to(dtype)
    zero = torch.zeros(1, 2, dtype=dtype)
    assert full_precision(wide).dtype == torch.float32
    norm = consistency(wide, zero, distance="l2")
    torch.testing.assert_close(norm, wide.float().norm())
    assert uniform_divergence(wide).dtype == torch.float32


def test_double_precision_stays_double() -> None:
    assert full_precision(tensor(LOGITS)).dtype == torch.float64
    assert full_precision(torch.zeros(1)).dtype == torch.float32
