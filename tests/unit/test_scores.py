"""The logit scores: hand-computed cases, SciPy, extremes, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from oodserve.errors import NonFiniteScore
from oodserve.scores import SCORES, energy, logsumexp, max_logit, msp, softmax

RNG = np.random.default_rng(7)
LOGITS = RNG.normal(0, 8, (500, 11))


def test_by_hand() -> None:
    # exp(0) + exp(ln 3) = 4, so the probabilities are 1/4 and 3/4.
    logits = np.array([[0.0, math.log(3.0)]])
    assert softmax(logits)[0] == pytest.approx([0.25, 0.75], rel=1e-15)
    assert msp(logits)[0] == pytest.approx(0.75, rel=1e-15)
    assert logsumexp(logits)[0] == pytest.approx(math.log(4.0), rel=1e-15)
    assert max_logit(logits)[0] == math.log(3.0)
    # T = 1/2: exp(0) + exp(2 ln 3) = 10.
    assert energy(logits, temperature=0.5)[0] == pytest.approx(0.5 * math.log(10.0), rel=1e-15)


def test_against_scipy() -> None:
    np.testing.assert_allclose(softmax(LOGITS), special.softmax(LOGITS, axis=1), rtol=1e-13)
    np.testing.assert_allclose(logsumexp(LOGITS), special.logsumexp(LOGITS, axis=1), rtol=1e-13)
    np.testing.assert_allclose(msp(LOGITS), special.softmax(LOGITS, axis=1).max(axis=1), rtol=1e-13)
    for temperature in (0.1, 1.0, 3.0, 1000.0):
        expected = temperature * special.logsumexp(LOGITS / temperature, axis=1)
        np.testing.assert_allclose(energy(LOGITS, temperature=temperature), expected, rtol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_one_float64_for_each_row(name: str) -> None:
    single = LOGITS.astype(np.float32)
    before = single.copy()
    scores = SCORES[name](single)
    assert scores.shape == (500,)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, SCORES[name](single.astype(np.float64)))
    np.testing.assert_array_equal(single, before)


@pytest.mark.parametrize("name", SCORES)
def test_rows_do_not_see_each_other_and_classes_have_no_order(name: str) -> None:
    score = SCORES[name]
    whole = score(LOGITS)
    order = RNG.permutation(500)
    np.testing.assert_array_equal(score(LOGITS[order]), whole[order])
    np.testing.assert_array_equal([score(LOGITS[i : i + 1])[0] for i in range(500)], whole)
    np.testing.assert_allclose(score(LOGITS[:, ::-1]), whole, rtol=1e-14)


@pytest.mark.parametrize(("name", "effect"), [("msp", 0.0), ("energy", 5.0), ("max_logit", 5.0)])
def test_effect_of_adding_a_constant(name: str, effect: float) -> None:
    score = SCORES[name]
    np.testing.assert_allclose(score(LOGITS + 5.0), score(LOGITS) + effect, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("size", [1e4, 1e300, 1.7e308])
def test_finite_for_huge_logits(name: str, size: float) -> None:
    logits = np.array([[size, -size, 0.0], [-size, -size, -size]])
    scores = SCORES[name](logits)
    expected = {"msp": [1.0, 1 / 3], "energy": [size, -size], "max_logit": [size, -size]}[name]
    # log 3 beside 1e4 is within the tolerance only for the larger sizes: state it.
    tolerance = 2e-4 if size == 1e4 else 1e-12
    np.testing.assert_allclose(scores, expected, rtol=tolerance)


def test_huge_logits_at_a_tiny_temperature() -> None:
    logits = np.array([[1e300, 0.0]])
    assert energy(logits, temperature=1e-300)[0] == 1e300


def test_larger_is_more_in_distribution() -> None:
    sure, unsure = np.array([[9.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0]])
    for score in SCORES.values():
        assert score(sure)[0] > score(unsure)[0]


def test_one_class_is_certain() -> None:
    assert msp(np.array([[3.0]]))[0] == 1.0
    assert energy(np.array([[3.0]]))[0] == 3.0


def test_the_saturation_that_the_docstring_names() -> None:
    assert msp(np.array([[37.0, 0.0]]))[0] == 1.0
    assert msp(np.array([[36.0, 0.0]]))[0] < 1.0


@pytest.mark.parametrize("function", [*SCORES.values(), softmax, logsumexp])
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (3, 0), ()])
def test_other_shapes_are_refused(function: object, shape: tuple[int, ...]) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=r"`logits` has shape \(.*\); expected \(N, C\) with N, C"):
        function(np.zeros(shape))


@pytest.mark.parametrize("function", [*SCORES.values(), softmax, logsumexp])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_are_refused(function: object, value: float) -> None:
    assert callable(function)
    logits = LOGITS.copy()
    logits[3, 2] = value
    with pytest.raises(NonFiniteScore, match="`logits` row 3 of 500 holds NaN or an infinity"):
        function(logits)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperature_is_a_positive_number(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"`temperature` = .* is not a positive number"):
        energy(LOGITS, temperature=temperature)
