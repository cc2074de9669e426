"""Intervals by the bootstrap: what figures would have been on other images like these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oodserve.metrics.arrays import ascending

Statistic = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
"""A figure of (in-distribution scores, out-of-distribution scores)."""

Samples = Sequence[NDArray[Any]]
Statistics = Callable[[Samples], Mapping[str, float]]
"""Several figures of several samples, by name; NaN where a figure is not defined."""


def bootstrap_interval(
    statistic: Statistic,
    in_scores: ArrayLike,
    out_scores: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a figure, each kind resampled by itself.

    Parameters
    ----------
    statistic : callable
        Takes (in_scores, out_scores), both float64, returns a float: any metric of this module.
    in_scores : (N,) float
        Of in-distribution images.
    out_scores : (M,) float
        Of out-of-distribution images.
    confidence : float
        Two-sided, in (0, 1).
    resamples : int
        Number of resamples, >= 1.
    rng : numpy.random.Generator
        Source of the resamples; the same state gives the same interval.

    Returns
    -------
    tuple of float
        Lower and upper end: the (1 -/+ confidence) / 2 quantiles of the resampled figures, linearly
        interpolated.

    Raises
    ------
    ValueError
        Not one-dimensional, or empty; `confidence` or `resamples` out of range.
    NonFiniteScore
        A score is NaN or infinite.

    Notes
    -----
    The interval covers the drawing of test images, not that of training runs.

    References
    ----------
    B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Examples
    --------
    >>> from oodserve.metrics import auroc
    >>> rng = np.random.default_rng(0)
    >>> inside, outside = rng.normal(2, 1, 400), rng.normal(0, 1, 400)
    >>> low, high = bootstrap_interval(auroc, inside, outside, rng=rng)
    >>> round(low, 3), round(auroc(inside, outside), 3), round(high, 3)
    (0.902, 0.921, 0.937)
    """
    _check_settings(confidence, resamples)
    inside, outside = ascending("in_scores", in_scores), ascending("out_scores", out_scores)
    figures = [statistic(_resample(inside, rng), _resample(outside, rng)) for _ in range(resamples)]
    low, high = np.quantile(figures, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


def bootstrap_intervals(
    statistics: Statistics,
    samples: Samples,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    """Return the percentile bootstrap interval of many figures from the same resamples.

    Figures that share samples, such as the mean over several sets of outliers, so move together.

    Parameters
    ----------
    statistics : callable
        Takes resamples of `samples`, in their order, and returns figures by name, always the same
        names; NaN for one that is not defined there, such as a risk with no image accepted.
    samples : sequence of (n_i, ...) arrays
        Each is resampled by itself, whole rows at a time, so that what is measured on one image
        stays together.
    confidence, resamples, rng
        See `bootstrap_interval`.

    Returns
    -------
    dict of str to tuple of float
        Lower and upper end for each name. Resamples where a figure is NaN are left out of its
        interval; a figure that is NaN in all of them is left out of the answer.

    Raises
    ------
    ValueError
        A sample is empty, or there is none; `confidence` or `resamples` out of range.

    Examples
    --------
    >>> answers = bootstrap_intervals(
    ...     lambda samples: {"mean": float(samples[0].mean())},
    ...     [np.arange(100.0)],
    ...     rng=np.random.default_rng(0),
    ... )
    >>> [round(end, 1) for end in answers["mean"]]
    [43.8, 55.0]
    """
    _check_settings(confidence, resamples)
    if not samples or any(len(sample) == 0 for sample in samples):
        lengths = [len(sample) for sample in samples]
        raise ValueError(f"samples of {lengths} rows cannot be resampled; expected 1 or more each")
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        figures = statistics([_resample(sample, rng) for sample in samples])
        for name, value in figures.items():
            drawn.setdefault(name, []).append(value)
    ends = ((1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0)
    intervals = {}
    for name, values in drawn.items():
        defined = np.array(values)[~np.isnan(values)]
        if defined.size:
            low, high = np.quantile(defined, ends)
            intervals[name] = (float(low), float(high))
    return intervals


def _check_settings(confidence: float, resamples: int) -> None:
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise ValueError(
            f"`confidence` = {confidence!r}, `resamples` = {resamples}; expected 0 < confidence < "
            "1 and resamples >= 1"
        )


def _resample(rows: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw rows with replacement, keeping their order, which spares most of a sort."""
    n = len(rows)
    times = np.bincount(rng.integers(n, size=n), minlength=n)
    drawn: NDArray[Any] = np.repeat(rows, times, axis=0)
    return drawn
