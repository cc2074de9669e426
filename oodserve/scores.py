"""The scores that need only logits, as float64 definitions.

Every score is larger for more in-distribution input. The exported graph computes the same in
float32; these are what it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodserve.errors import NonFiniteScore

Logits = NDArray[np.floating[Any]]
"""(N, C) unnormalised class scores, float32 or float64."""


def logsumexp(logits: Logits) -> NDArray[np.float64]:
    """Return log(sum over classes of exp(logit)), without overflow.

    Parameters
    ----------
    logits : (N, C) float
        Unnormalised.

    Returns
    -------
    (N,) float64

    Raises
    ------
    ValueError
        Not two-dimensional, or empty.
    NonFiniteScore
        A logit is NaN or infinite.

    Examples
    --------
    >>> logsumexp(np.array([[1000.0, 1000.0]])).round(4)
    array([1000.6931])
    """
    return energy(logits, temperature=1.0)


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the class probabilities exp(z_c) / sum over j of exp(z_j).

    Parameters
    ----------
    logits : (N, C) float
        Unnormalised.

    Returns
    -------
    (N, C) float64
        Rows sum to 1.

    Raises
    ------
    ValueError
        Not two-dimensional, or empty.
    NonFiniteScore
        A logit is NaN or infinite.

    Examples
    --------
    >>> softmax(np.array([[1.0, 2.0, 3.0]])).round(4)
    array([[0.09  , 0.2447, 0.6652]])
    """
    exponentials = _exponentials(_checked(logits), 1.0)
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def msp(logits: Logits) -> NDArray[np.float64]:
    """Return the maximum softmax probability of each row.

    Parameters
    ----------
    logits : (N, C) float
        Unnormalised.

    Returns
    -------
    (N,) float64
        In [1/C, 1]; larger = more in-distribution. Saturates: beyond a margin of about 37 between
        the two largest logits it is exactly 1.

    Raises
    ------
    ValueError
        Not two-dimensional, or empty.
    NonFiniteScore
        A logit is NaN or infinite.

    References
    ----------
    D. Hendrycks, K. Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples in Neural Networks", ICLR 2017.

    Examples
    --------
    >>> msp(np.array([[1.0, 2.0, 3.0]])).round(4)
    array([0.6652])
    """
    largest: NDArray[np.float64] = 1.0 / _exponentials(_checked(logits), 1.0).sum(axis=1)
    return largest


def energy(logits: Logits, *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the negative free energy, T log(sum over classes of exp(logit / T)).

    Adding a constant to every logit adds it to the score.

    Parameters
    ----------
    logits : (N, C) float
        Unnormalised.
    temperature : float
        T, above 0.

    Returns
    -------
    (N,) float64
        Unbounded; larger = more in-distribution. The paper's energy E(x; f) is the negative of
        this.

    Raises
    ------
    ValueError
        Not two-dimensional, or empty; `temperature` not a positive number.
    NonFiniteScore
        A logit is NaN or infinite.

    References
    ----------
    W. Liu, X. Wang, J. Owens, Y. Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020,
    equation 4.

    Examples
    --------
    >>> energy(np.array([[1.0, 2.0, 3.0]])).round(4)
    array([3.4076])
    >>> energy(np.array([[1.0, 2.0, 3.0]]), temperature=2.0).round(4)
    array([4.3605])
    """
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"`temperature` = {temperature!r} is not a positive number")
    checked = _checked(logits)
    sums = _exponentials(checked, temperature).sum(axis=1)
    free: NDArray[np.float64] = checked.max(axis=1) + temperature * np.log(sums)
    return free


def max_logit(logits: Logits) -> NDArray[np.float64]:
    """Return the largest logit of each row.

    Parameters
    ----------
    logits : (N, C) float
        Unnormalised.

    Returns
    -------
    (N,) float64
        Unbounded; larger = more in-distribution.

    Raises
    ------
    ValueError
        Not two-dimensional, or empty.
    NonFiniteScore
        A logit is NaN or infinite.

    References
    ----------
    D. Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML
    2022, section 3; the paper's anomaly score is the negative of this.

    Examples
    --------
    >>> max_logit(np.array([[1.0, 2.0, 3.0]]))
    array([3.])
    """
    maxima: NDArray[np.float64] = _checked(logits).max(axis=1)
    return maxima


SCORES: Mapping[str, Callable[[Logits], NDArray[np.float64]]] = MappingProxyType(
    {"msp": msp, "energy": energy, "max_logit": max_logit}
)
"""Score name to function of the logits."""


def _checked(logits: Logits) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"`logits` has shape {values.shape}; expected (N, C) with N, C >= 1")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NonFiniteScore(
            f"`logits` row {row} of {len(values)} holds NaN or an infinity; expected finite numbers"
        )
    return values


def _exponentials(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return exp((z - max z) / T): in [0, 1], and 1 at the maximum."""
    # A gap beyond the range of float64 becomes -inf, whose exponential is the right 0.
    with np.errstate(over="ignore"):
        shifted: NDArray[np.float64] = (logits - logits.max(axis=1, keepdims=True)) / temperature
    return np.exp(shifted)
