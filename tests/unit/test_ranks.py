"""Ranks of the threshold: worked tables, the least samples, and the float trap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from oodserve.calibration import (
    binomial_cdf,
    clopper_pearson_upper,
    marginal_rank,
    marginal_samples_needed,
    pac_rank,
    pac_samples_needed,
)
from oodserve.errors import TooFewSamples

# n, then at alpha 0.05: marginal k, sd of the TPR, P(TPR < 0.95); PAC k at delta 0.05, mean TPR,
# P(TPR < 0.95); PAC k at delta 0.1 and at 0.01 (None: too few). As printed in the table from which
# the rules were specified, itself verified by simulation.
TABLE = [
    (59, 3, ".028", ".43", 1, ".983", ".048", 1, None),
    (100, 5, ".0215", ".436", 2, ".980", ".037", 2, 1),
    (200, 10, ".0153", ".455", 5, ".975", ".026", 6, 4),
    (500, 25, ".0097", ".471", 17, ".966", ".034", 19, 14),
    (1000, 50, ".0069", ".480", 39, ".961", ".043", 41, 35),
    (5000, 250, ".0031", ".491", 225, ".955", ".047", 230, 215),
    (10000, 500, ".0022", ".494", 464, ".9536", ".046", 472, 450),
    (50000, 2500, ".0010", ".497", 2420, ".9516", ".049", 2438, 2387),
]


def printed(value: float, like: str) -> str:
    """Format a number in [0, 1) with as many decimals as `like`, without the leading zero."""
    return f"{value:.{len(like) - 1}f}".removeprefix("0")


@pytest.mark.parametrize("row", TABLE, ids=[f"n={row[0]}" for row in TABLE])
def test_the_worked_table(
    row: tuple[int, int, str, str, int, str, str, int, int | None],
) -> None:
    n, marginal, deviation, marginal_miss, pac, mean, pac_miss, pac_10, pac_01 = row
    assert marginal_rank(n, 0.05) == marginal
    # TPR ~ Beta(n + 1 - k, k), whose variance is m (1 - m) / (n + 2) at mean m.
    m = marginal / (n + 1)
    assert printed(math.sqrt(m * (1 - m) / (n + 2)), deviation) == deviation
    assert printed(binomial_cdf(marginal - 1, n, 0.05), marginal_miss) == marginal_miss
    assert pac_rank(n, 0.05, 0.05) == pac
    assert printed(1 - pac / (n + 1), mean) == mean
    assert printed(binomial_cdf(pac - 1, n, 0.05), pac_miss) == pac_miss
    assert pac_rank(n, 0.05, 0.1) == pac_10
    if pac_01 is None:
        with pytest.raises(TooFewSamples):
            pac_rank(n, 0.05, 0.01)
    else:
        assert pac_rank(n, 0.05, 0.01) == pac_01


def test_the_worked_example_of_200() -> None:
    assert f"{binomial_cdf(4, 200, 0.05):.4f} {binomial_cdf(5, 200, 0.05):.4f}" == "0.0264 0.0623"
    assert f"{1 - clopper_pearson_upper(4, 200, 0.95):.4f}" == "0.9548"


def test_the_monitoring_baseline_of_a_marginal_threshold() -> None:
    assert f"{clopper_pearson_upper(49, 1000, 0.95):.4f}" == "0.0618"


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.29, 0.5, 0.9])
@pytest.mark.parametrize("delta", [0.001, 0.05, 0.5, 0.99])
def test_pac_rank_is_the_largest_with_the_promise(alpha: float, delta: float) -> None:
    for n in (1, 10, 59, 300, 4_000):
        counts = np.arange(n)
        allowed = np.flatnonzero(stats.binom.cdf(counts, n, alpha) <= delta)
        if allowed.size == 0:
            with pytest.raises(TooFewSamples):
                pac_rank(n, alpha, delta)
        else:
            assert pac_rank(n, alpha, delta) == allowed[-1] + 1


@pytest.mark.parametrize(("alpha", "expected"), [(0.05, (45, 59, 90)), (0.01, (230, 299, 459))])
def test_pac_samples_needed_of_the_table(alpha: float, expected: tuple[int, int, int]) -> None:
    assert tuple(pac_samples_needed(alpha, delta) for delta in (0.1, 0.05, 0.01)) == expected


@pytest.mark.parametrize("alpha", [1e-4, 0.01, 1 - 0.95, 0.29, 0.5, 1 - 0.1, 0.999])
def test_samples_needed_are_the_least_that_suffice(alpha: float) -> None:
    for delta in (1e-6, 0.01, 1 - 0.95, 0.25, 0.5, 0.9):
        needed = pac_samples_needed(alpha, delta)
        assert pac_rank(needed, alpha, delta) >= 1
        with pytest.raises(TooFewSamples) as caught:
            pac_rank(needed - 1, alpha, delta)
        assert (caught.value.got, caught.value.needed) == (needed - 1, needed)
    needed = marginal_samples_needed(alpha)
    assert marginal_rank(needed, alpha) >= 1
    with pytest.raises(TooFewSamples) as caught:
        marginal_rank(needed - 1, alpha)
    assert (caught.value.got, caught.value.needed) == (needed - 1, needed)


def test_marginal_samples_needed_at_common_targets() -> None:
    needed = [marginal_samples_needed(1 - target) for target in (0.5, 0.9, 0.95, 0.99, 0.999)]
    assert needed == [1, 9, 19, 99, 999]


def test_a_product_just_below_an_integer_is_that_integer() -> None:
    assert 0.29 * 100 < 29
    assert marginal_rank(99, 0.29) == 29
    # Every two-digit alpha at n = 99 has rank 100 alpha, whichever way the product rounds.
    assert [marginal_rank(99, i / 100) for i in range(1, 100)] == list(range(1, 100))
    assert [marginal_rank(99, 1 - i / 100) for i in range(1, 100)] == list(range(99, 0, -1))


def test_too_few_samples_say_how_many_are_needed() -> None:
    with pytest.raises(
        TooFewSamples,
        match=r"40 calibration images are too few to accept at least 0\.95 of in-distribution "
        r"images with confidence 0\.95; at least 59 are needed",
    ):
        pac_rank(40, 1 - 0.95, 1 - 0.95)
    with pytest.raises(
        TooFewSamples,
        match=r"18 calibration images are too few to accept 0\.95 of in-distribution images on "
        "average; at least 19 are needed",
    ):
        marginal_rank(18, 1 - 0.95)


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, math.nan])
def test_alpha_and_delta_are_fractions(value: float) -> None:
    with pytest.raises(ValueError, match="`alpha` = "):
        pac_rank(100, value, 0.05)
    with pytest.raises(ValueError, match="`delta` = "):
        pac_rank(100, 0.05, value)
    with pytest.raises(ValueError, match="`alpha` = "):
        marginal_rank(100, value)
