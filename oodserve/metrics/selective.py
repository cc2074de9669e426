"""Answering only where the score is high: what is answered, and how often that is wrong.

A classifier that may decline answers an image when its score is at least a threshold. *Coverage* is
the share of images answered, *selective risk* the share of the answered ones that is wrong. Scores
are larger for more in-distribution input and stand in for confidence here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oodserve.binomial import clopper_pearson_interval
from oodserve.metrics.arrays import finite


@dataclass(frozen=True)
class Rate:
    """A share with the counts that it comes from."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """`count` / `total`, or None where nothing was counted."""
        return self.count / self.total if self.total else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Return the exact (Clopper-Pearson) two-sided interval, or None where `total` is 0.

        Examples
        --------
        >>> low, high = Rate(463, 10_000).interval(0.95)
        >>> round(low, 4), round(high, 4)
        (0.0423, 0.0506)
        """
        if self.total == 0:
            return None
        return clopper_pearson_interval(self.count, self.total, confidence)


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The risk-coverage curve, from the strictest threshold to the one that answers all.

    Attributes
    ----------
    thresholds : (T,) float64
        The distinct scores, descending; an image is answered when its score >= threshold.
    coverage : (T,) float64
        Share of images answered, ascending to 1.
    risk : (T,) float64
        Share of the answered images that is wrong; the last one is the error rate.
    """

    thresholds: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def risk_coverage(scores: ArrayLike, wrong: ArrayLike) -> RiskCoverage:
    """Return coverage and selective risk at every threshold that exists.

    Parameters
    ----------
    scores : (N,) float
        Larger = answered sooner. Equal scores are answered together.
    wrong : (N,) bool
        Whether the prediction of the image is wrong. An outlier that should not be answered counts
        as wrong.

    Raises
    ------
    ValueError
        Not one-dimensional, empty, or of different lengths; `wrong` is not of booleans.
    NonFiniteScore
        A score is NaN or infinite.

    References
    ----------
    Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", 2017, section 2.

    Examples
    --------
    >>> curve = risk_coverage([0.9, 0.8, 0.8, 0.1], [False, True, False, True])
    >>> curve.coverage, curve.risk.round(4)
    (array([0.25, 0.75, 1.  ]), array([0.    , 0.3333, 0.5   ]))
    """
    thresholds, answered, errors = _accumulated(scores, wrong)
    return RiskCoverage(
        thresholds=thresholds, coverage=answered / answered[-1], risk=errors / answered
    )


def aurc(scores: ArrayLike, wrong: ArrayLike) -> float:
    """Return the area under the risk-coverage curve: the mean selective risk over k / N, k = 1..N.

    Parameters
    ----------
    scores, wrong
        See `risk_coverage`.

    Returns
    -------
    float
        In [0, 1]; smaller is better. An order by chance has the error rate as its expectation.

    Raises
    ------
    ValueError, NonFiniteScore
        See `risk_coverage`.

    Notes
    -----
    Within a group of equal scores the expectation over its random orders is taken: after j of its g
    images, j / g of its errors. So the value does not depend on the order of the rows, and N equal
    scores give the error rate. Cost O(N log N).

    References
    ----------
    Y. Geifman, G. Uziel, R. El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers", 2019, equation 2.

    Examples
    --------
    >>> round(aurc([4, 3, 2, 1], [False, False, False, True]), 4)  # (0 + 0 + 0 + 1/4) / 4
    0.0625
    >>> aurc([1, 1, 1, 1], [False, False, False, True])
    0.25
    """
    _, answered, errors = _accumulated(scores, wrong)
    sizes = np.diff(answered, prepend=0)
    group_errors = np.diff(errors, prepend=0)
    total = int(answered[-1])
    # For the k-th image answered: what was answered and wrong before its group, and within it.
    before = np.repeat(answered - sizes, sizes)
    errors_before = np.repeat(errors - group_errors, sizes)
    share = np.repeat(group_errors / sizes, sizes)
    k = np.arange(1, total + 1)
    return float(np.mean((errors_before + (k - before) * share) / k))


@dataclass(frozen=True)
class OperatingPoint:
    """What happens at one threshold tau; an image is answered when its score >= tau."""

    false_alarms: Rate
    """In-distribution images flagged: score < tau."""
    coverage: Rate
    """In-distribution images answered, the complement."""
    selective_risk: Rate
    """Wrong answers among the in-distribution images answered."""
    ood_recall: Rate | None
    """Outliers flagged; None without outliers."""
    risk_with_ood: Rate | None
    """Wrong answers among all images answered, each outlier that is answered counting as wrong, at
    the proportion of the arrays; None without outliers."""


def operating_point(
    in_scores: ArrayLike, wrong: ArrayLike, out_scores: ArrayLike | None = None, *, tau: float
) -> OperatingPoint:
    """Return the counts at a threshold.

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images; larger = more in-distribution.
    wrong : (N,) bool
        Whether the prediction of each of them is wrong.
    out_scores : (M,) float or None
        Of out-of-distribution images.
    tau : float
        Threshold, from images that are in neither array.

    Raises
    ------
    ValueError
        Not one-dimensional, empty, or of different lengths; `wrong` is not of booleans; `tau` is
        NaN.
    NonFiniteScore
        A score is NaN or infinite.

    Examples
    --------
    >>> point = operating_point([1, 2, 3, 4], [True, False, True, False], [0, 1, 2], tau=2)
    >>> point.false_alarms.value, point.selective_risk, point.ood_recall, point.risk_with_ood
    (0.25, Rate(count=1, total=3), Rate(count=2, total=3), Rate(count=2, total=4))
    """
    if np.isnan(tau):
        raise ValueError("`tau` is NaN; expected a threshold")
    inside, mistaken = _pair(in_scores, wrong)
    answered = inside >= tau
    kept, errors = int(answered.sum()), int((answered & mistaken).sum())
    recall = risk = None
    if out_scores is not None:
        outside = finite("out_scores", out_scores)
        passed = int((outside >= tau).sum())
        recall = Rate(outside.size - passed, outside.size)
        risk = Rate(errors + passed, kept + passed)
    return OperatingPoint(
        false_alarms=Rate(inside.size - kept, inside.size),
        coverage=Rate(kept, inside.size),
        selective_risk=Rate(errors, kept),
        ood_recall=recall,
        risk_with_ood=risk,
    )


def _accumulated(
    scores: ArrayLike, wrong: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct scores, descending, and images and errors at or above each."""
    values, mistaken = _pair(scores, wrong)
    distinct, group = np.unique(-values, return_inverse=True)
    sizes = np.bincount(group, minlength=distinct.size)
    errors = np.bincount(group, weights=mistaken, minlength=distinct.size).astype(np.int64)
    return -distinct, np.cumsum(sizes), np.cumsum(errors)


def _pair(scores: ArrayLike, wrong: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, mistaken = finite("scores", scores), np.asarray(wrong)
    if mistaken.shape != values.shape or mistaken.dtype != np.bool_:
        raise ValueError(
            f"`wrong` is {mistaken.dtype} of shape {mistaken.shape}; expected bool of shape "
            f"{values.shape}, one for each score"
        )
    return values, mistaken
