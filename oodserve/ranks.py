"""Which of n sorted calibration scores is the threshold, and how many scores that takes."""

from __future__ import annotations

import math

from oodserve.binomial import binomial_cdf, check_fraction
from oodserve.errors import TooFewSamples


def pac_samples_needed(alpha: float, delta: float) -> int:
    """Return the least n at which `pac_rank` has an answer, ln(delta) / ln(1 - alpha) rounded up.

    Raises
    ------
    ValueError
        `alpha` or `delta` is not strictly between 0 and 1.

    Examples
    --------
    >>> [pac_samples_needed(0.05, delta) for delta in (0.1, 0.05, 0.01)]
    [45, 59, 90]
    """
    check_fraction("alpha", alpha)
    check_fraction("delta", delta)
    n = max(1, math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9))
    # The comparison that decides is the one that `pac_rank` makes.
    return n if binomial_cdf(0, n, alpha) <= delta else n + 1


def marginal_samples_needed(alpha: float) -> int:
    """Return the least n at which `marginal_rank` has an answer, 1/alpha - 1 rounded up.

    Raises
    ------
    ValueError
        `alpha` is not strictly between 0 and 1.

    Examples
    --------
    >>> marginal_samples_needed(0.05), marginal_samples_needed(0.01)
    (19, 99)
    """
    check_fraction("alpha", alpha)
    n = max(1, math.ceil(1.0 / alpha - 1.0 - 1e-6))
    return n if conformal_rank(n, alpha) >= 1 else n + 1


def pac_rank(n: int, alpha: float, delta: float) -> int:
    """Return the largest k with P(Binomial(n, alpha) <= k - 1) <= delta.

    The share q of in-distribution images below s_(k) is Beta(k, n - k + 1) distributed over
    calibration sets (continuous scores; ties make it smaller), so P(q > alpha) <= delta.

    Parameters
    ----------
    n : int
        Number of calibration scores.
    alpha : float
        Largest share of in-distribution images to reject, in (0, 1).
    delta : float
        Probability of a calibration set for which more are rejected, in (0, 1).

    Returns
    -------
    int
        k, 1 to n.

    Raises
    ------
    TooFewSamples
        Not even the smallest score keeps the promise.
    ValueError
        `alpha` or `delta` is not strictly between 0 and 1.

    References
    ----------
    S. S. Wilks, "Determination of Sample Sizes for Setting Tolerance Limits", 1941.

    Examples
    --------
    >>> pac_rank(200, 0.05, 0.05), pac_rank(1000, 0.05, 0.05)
    (5, 39)
    """
    needed = pac_samples_needed(alpha, delta)
    if n < needed:
        raise TooFewSamples(
            f"{n} calibration images are too few to accept at least {1.0 - alpha:.6g} of "
            f"in-distribution images with confidence {1.0 - delta:.6g}; at least {needed} are "
            "needed",
            got=n,
            needed=needed,
        )
    low, high = 1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_cdf(middle - 1, n, alpha) <= delta:
            low = middle
        else:
            high = middle
    return low


def marginal_rank(n: int, alpha: float) -> int:
    """Return floor(alpha (n + 1)), the rank of split conformal prediction.

    Parameters
    ----------
    n : int
        Number of calibration scores.
    alpha : float
        Largest share of in-distribution images to reject on average, in (0, 1).

    Returns
    -------
    int
        k, 1 to n.

    Raises
    ------
    TooFewSamples
        alpha (n + 1) is less than 1.
    ValueError
        `alpha` is not strictly between 0 and 1.

    Examples
    --------
    >>> marginal_rank(99, 0.29), int(0.29 * 100)
    (29, 28)
    """
    needed = marginal_samples_needed(alpha)
    if n < needed:
        raise TooFewSamples(
            f"{n} calibration images are too few to accept {1.0 - alpha:.6g} of in-distribution "
            f"images on average; at least {needed} are needed",
            got=n,
            needed=needed,
        )
    return conformal_rank(n, alpha)


def conformal_rank(n: int, alpha: float) -> int:
    """Return floor(alpha (n + 1)), which may be 0; `marginal_rank` is the one that refuses that."""
    # In floating point 0.29 * 100 is 28.999...; the slack is far below any effect of rounding k.
    return math.floor(alpha * (n + 1) + 1e-9)
