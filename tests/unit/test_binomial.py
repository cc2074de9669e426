"""Binomial tails and exact bounds against SciPy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from oodserve.binomial import (
    binomial_cdf,
    check_fraction,
    clopper_pearson_interval,
    clopper_pearson_lower,
    clopper_pearson_upper,
)

TRIALS = (1, 2, 3, 15, 16, 17, 100, 1_000, 50_000, 1_000_000)
PROBABILITIES = (1e-9, 1e-6, 0.001, 0.05, 0.3, 0.5, 0.77, 0.95, 0.999, 1 - 1e-6)


@pytest.mark.parametrize("n", TRIALS)
def test_cdf_equals_scipy_to_ten_digits_in_the_bulk_and_in_both_tails(n: int) -> None:
    for p in PROBABILITIES:
        deviation = math.sqrt(n * p * (1 - p))
        steps = (-30, -8, -3, -1, 0, 0.5, 2, 6)
        places = {int(min(max(0, n * p + step * deviation), n)) for step in steps}
        for k in places | {0, n // 2, n - 1}:
            expected = float(stats.binom.cdf(k, n, p))
            assert binomial_cdf(k, n, p) == pytest.approx(expected, rel=1e-10, abs=1e-290), (p, k)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_cdf_equals_the_sum_of_the_textbook_terms(n: int) -> None:
    for p in (0.05, 0.5, 0.9):
        total = 0.0
        for k in range(n + 1):
            total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
            assert binomial_cdf(k, n, p) == pytest.approx(total, rel=1e-12)


def test_cdf_outside_the_support_and_at_certain_outcomes() -> None:
    assert binomial_cdf(-1, 10, 0.3) == 0.0
    assert binomial_cdf(10, 10, 0.3) == 1.0
    assert binomial_cdf(11, 10, 0.3) == 1.0
    assert [binomial_cdf(k, 10, 0.0) for k in (-1, 0, 5)] == [0.0, 1.0, 1.0]
    assert [binomial_cdf(k, 10, 1.0) for k in (0, 9, 10)] == [0.0, 0.0, 1.0]


def test_a_probability_that_is_a_subnormal_is_not_lost() -> None:
    assert binomial_cdf(0, 1, 5e-324) == 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 10, 59, 200, 1_000, 100_000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_bounds_are_the_beta_quantiles(n: int, confidence: float) -> None:
    for x in {0, 1, n // 20, n // 2, n - 1, n}:
        upper = 1.0 if x == n else float(stats.beta.ppf(confidence, x + 1, n - x))
        lower = 0.0 if x == 0 else float(stats.beta.ppf(1 - confidence, x, n - x + 1))
        assert clopper_pearson_upper(x, n, confidence) == pytest.approx(upper, rel=1e-10)
        assert clopper_pearson_lower(x, n, confidence) == pytest.approx(lower, rel=1e-10)


def test_interval_equals_scipys_exact_one() -> None:
    for x, n in ((0, 20), (3, 20), (20, 20), (463, 10_000)):
        exact = stats.binomtest(x, n).proportion_ci(0.9, method="exact")
        expected = pytest.approx((exact.low, exact.high), rel=1e-8)
        assert clopper_pearson_interval(x, n, 0.9) == expected


def test_the_printed_verification_interval() -> None:
    low, high = clopper_pearson_interval(463, 10_000, 0.95)
    assert (f"{low:.4f}", f"{high:.4f}") == ("0.0423", "0.0506")


@pytest.mark.parametrize(
    ("k", "n", "p"), [(0, 0, 0.5), (0, 5, -0.1), (0, 5, 1.1), (0, 5, math.nan)]
)
def test_trials_and_probabilities_out_of_range(k: int, n: int, p: float) -> None:
    with pytest.raises(ValueError, match=rf"{n} trials of probability .*: expected n >= 1 and"):
        binomial_cdf(k, n, p)


@pytest.mark.parametrize(("x", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_out_of_range(x: int, n: int) -> None:
    for bound in (clopper_pearson_lower, clopper_pearson_upper, clopper_pearson_interval):
        with pytest.raises(ValueError, match=f"{x} successes of {n} trials: expected 0 <= "):
            bound(x, n, 0.95)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_fractions_are_strictly_between_0_and_1(value: float) -> None:
    with pytest.raises(ValueError, match=r"`share` = .* is not strictly between 0 and 1"):
        check_fraction("share", value)
    for bound in (clopper_pearson_lower, clopper_pearson_upper, clopper_pearson_interval):
        with pytest.raises(ValueError, match="`confidence` = "):
            bound(1, 5, value)
