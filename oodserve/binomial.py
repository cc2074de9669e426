"""The binomial distribution: tail probabilities and exact (Clopper-Pearson) bounds on a rate.

NumPy and `math` only. Probabilities are accurate to about 1e-13 relative up to n = 1e6, which
differences of `lgamma` are not: at that size its rounding alone costs 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_TERMS_AT_ONCE = 2048


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return P(X <= k) for X binomial with `n` trials of probability `p`.

    The probability of `k` itself comes from Loader's saddle-point form, the rest from the ratio of
    neighbouring terms, summed away from the mode; so the smaller tail has no cancellation.

    Parameters
    ----------
    k : int
        Number of successes; below 0 gives 0, `n` or more gives 1.
    n : int
        Number of trials, >= 1.
    p : float
        Probability of success, 0 to 1.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        `n` or `p` is out of range.

    References
    ----------
    C. Loader, "Fast and Accurate Computation of Binomial Probabilities", 2000.

    Examples
    --------
    >>> round(binomial_cdf(4, 200, 0.05), 4), round(binomial_cdf(5, 200, 0.05), 4)
    (0.0264, 0.0623)
    """
    return _tails(k, n, p)[0]


def clopper_pearson_upper(x: int, n: int, confidence: float) -> float:
    """Return the upper bound on a rate after `x` successes in `n` trials.

    The p at which P(X <= x) = 1 - confidence, that is BetaInv(confidence; x + 1, n - x). Whatever
    the true rate, the bound is at or above it with probability >= `confidence`.

    Parameters
    ----------
    x, n : int
        Successes and trials, 0 <= x <= n, n >= 1.
    confidence : float
        One-sided, in (0, 1).

    Raises
    ------
    ValueError
        A value is out of range.

    References
    ----------
    C. J. Clopper, E. S. Pearson, "The Use of Confidence or Fiducial Limits", Biometrika 1934.

    Examples
    --------
    >>> round(clopper_pearson_upper(0, 59, 0.95), 4), round(clopper_pearson_upper(4, 200, 0.95), 4)
    (0.0495, 0.0452)
    """
    _check_counts(x, n)
    check_fraction("confidence", confidence)
    if x == n:
        return 1.0
    return _bisect(lambda p: _tails(x, n, p)[0] > 1.0 - confidence)


def clopper_pearson_lower(x: int, n: int, confidence: float) -> float:
    """Return the lower bound on a rate after `x` successes in `n` trials.

    The p at which P(X >= x) = 1 - confidence, that is BetaInv(1 - confidence; x, n - x + 1).

    Parameters
    ----------
    x, n : int
        Successes and trials, 0 <= x <= n, n >= 1.
    confidence : float
        One-sided, in (0, 1).

    Raises
    ------
    ValueError
        A value is out of range.

    Examples
    --------
    >>> round(clopper_pearson_lower(196, 200, 0.95), 4)
    0.9548
    """
    _check_counts(x, n)
    check_fraction("confidence", confidence)
    if x == 0:
        return 0.0
    return _bisect(lambda p: _tails(x - 1, n, p)[1] < 1.0 - confidence)


def clopper_pearson_interval(x: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the exact two-sided interval of a rate after `x` successes in `n` trials.

    Each side has half of 1 - confidence.

    Parameters
    ----------
    x, n : int
        Successes and trials, 0 <= x <= n, n >= 1.
    confidence : float
        Two-sided, in (0, 1).

    Raises
    ------
    ValueError
        A value is out of range.

    Examples
    --------
    >>> low, high = clopper_pearson_interval(463, 10_000, 0.95)
    >>> round(low, 4), round(high, 4)
    (0.0423, 0.0506)
    """
    check_fraction("confidence", confidence)
    one_sided = (1.0 + confidence) / 2.0
    return clopper_pearson_lower(x, n, one_sided), clopper_pearson_upper(x, n, one_sided)


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"`{name}` = {value!r} is not strictly between 0 and 1")


def _check_counts(x: int, n: int) -> None:
    if n < 1 or not 0 <= x <= n:
        raise ValueError(f"{x} successes of {n} trials: expected 0 <= successes <= trials, >= 1")


def _tails(k: int, n: int, p: float) -> tuple[float, float]:
    """Return (P(X <= k), P(X > k)); the smaller of the two is summed, the other its complement."""
    if n < 1 or not 0.0 <= p <= 1.0:
        raise ValueError(f"{n} trials of probability {p!r}: expected n >= 1 and 0 <= p <= 1")
    if k < 0 or k >= n or p in (0.0, 1.0):
        below = float(k >= n or (k >= 0 and p == 0.0))
        return below, 1.0 - below
    q = 1.0 - p
    if k < n * p:
        lower = min(1.0, _lower_sum(k, n, p, q))
        return lower, 1.0 - lower
    upper = min(1.0, _lower_sum(n - k - 1, n, q, p))
    return 1.0 - upper, upper


def _lower_sum(k: int, n: int, p: float, q: float) -> float:
    """Return P(X <= k) for k below the mean: pmf(k) (1 + r_k + r_k r_(k-1) + ...), r_j < 1.

    `q` is 1 - `p`, passed because computing the smaller from the larger would lose its digits.
    """
    odds = q / p
    total = term = _pmf(k, n, p, q)
    while k > 0 and term > total * 1e-18:
        counts = np.arange(k, max(0, k - _TERMS_AT_ONCE), -1, dtype=np.float64)
        terms = term * np.cumprod(counts / (n - counts + 1.0) * odds)
        total += float(terms.sum())
        term = float(terms[-1])
        k -= counts.size
    return total


def _pmf(k: int, n: int, p: float, q: float) -> float:
    if k == 0:
        return math.exp(n * (math.log1p(-p) if p < q else math.log(q)))
    exponent = (
        _stirling_error(n)
        - _stirling_error(k)
        - _stirling_error(n - k)
        - _deviance(k, n * p)
        - _deviance(n - k, n * q)
    )
    return math.exp(exponent) * math.sqrt(n / (2.0 * math.pi * k * (n - k)))


def _stirling_error(n: int) -> float:
    """Return ln(n!) minus Stirling's approximation of it."""
    if n <= 15:
        stirling = (n + 0.5) * math.log(n) - n + 0.5 * math.log(2.0 * math.pi)
        return math.lgamma(n + 1.0) - stirling
    square = float(n) * n
    inner = 1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square
    return (1 / 12 - inner / square) / n


def _deviance(x: float, mean: float) -> float:
    """Return x ln(x / mean) + mean - x without cancellation where x is near the mean."""
    difference = x - mean
    if abs(difference) >= 0.1 * (x + mean):
        return x * math.log(x / mean) - difference
    ratio = difference / (x + mean)
    total, power, odd = difference * ratio, 2.0 * x * ratio, 1
    while True:
        power *= ratio * ratio
        odd += 2
        following = total + power / odd
        if following == total:
            return total
        total = following


def _bisect(is_below: Callable[[float], bool]) -> float:
    """Return the p in [0, 1] at which `is_below` turns false, to the last bit."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2.0
        if middle in (low, high):
            return high
        if is_below(middle):
            low = middle
        else:
            high = middle
