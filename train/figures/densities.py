"""Densities of confidences: of known and unknown images, and of pictures between the two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from train.figures.style import INSIDE, Look, counted, legend, new_axes, outside

GRID_POINTS = 256
LEAST_BANDWIDTH = 0.004
"""Of the unit interval: where all values are equal, a peak that is still seen."""


def confidence_densities(
    inside: ArrayLike, sets: Mapping[str, ArrayLike], *, score: str = "msp"
) -> Figure:
    """Draw the densities of confidences of known images and of each out-of-distribution set.

    Parameters
    ----------
    inside : (N,) float
        Confidences of in-distribution images, in [0, 1].
    sets : mapping of str to (M,) float
        Those of the sets; near ones first, by the usual order.
    score : str
        What the confidences are, for the axis.

    Raises
    ------
    ValueError
        A list is empty, not finite, or outside [0, 1].

    References
    ----------
    MixOE (arXiv 2106.03917), figures 3 and 6; ASCOOD (arXiv 2411.10794), figure 4.
    """
    figure, axes = new_axes()
    _draw(axes, "known classes", inside, INSIDE)
    for number, (name, values) in enumerate(sets.items()):
        _draw(axes, name, values, outside(number))
    return _finish(figure, axes, f"{score}: confidence in the predicted class")


def interpolation_densities(confidences: Mapping[float, ArrayLike]) -> Figure:
    """Draw the densities of confidences on pictures between a known and an unknown one.

    Parameters
    ----------
    confidences : mapping of float to (N,) float
        The weight lambda of the known image, 1 for the image itself, to confidences in [0, 1].

    Raises
    ------
    ValueError
        A list is empty, not finite, or outside [0, 1].

    References
    ----------
    MixOE (arXiv 2106.03917), figure 4: x = lambda x_ID + (1 - lambda) x_OOD.
    """
    figure, axes = new_axes()
    for number, lam in enumerate(sorted(confidences, reverse=True)):
        look = INSIDE if number == 0 else outside(number - 1)
        notes = {1.0: ", known", 0.0: ", unknown"}
        _draw(axes, f"λ = {lam:g}{notes.get(lam, '')}", confidences[lam], look)
    return _finish(figure, axes, "msp: confidence in the predicted class")


def reflected_density(values: ArrayLike, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a Gaussian kernel density of values in [0, 1], with no mass outside of it.

    Each kernel's part beyond an end is folded back at that end, so the density integrates to 1 and
    does not fall off at 1, where confidences pile up. Bandwidth by Silverman's rule,
    0.9 min(sd, IQR / 1.34) n^(-1/5), and at least `LEAST_BANDWIDTH`.

    Parameters
    ----------
    values : (N,) float
        In [0, 1].
    points : (P,) float64
        Where, in [0, 1].

    Returns
    -------
    (P,) float64
        Per unit of the values.

    Raises
    ------
    ValueError
        `values` is empty, not finite, not one-dimensional, or outside [0, 1].

    References
    ----------
    B. Silverman, "Density Estimation for Statistics and Data Analysis", 1986, equation 3.31 and
    section 2.10.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0 or not ((given >= 0.0) & (given <= 1.0)).all():
        raise ValueError(
            f"`values` of shape {given.shape} are not numbers in [0, 1]; expected (N,), N >= 1"
        )
    upper, lower = np.quantile(given, [0.75, 0.25])
    spread = min(float(given.std()), float(upper - lower) / 1.34) or float(given.std())
    width = max(0.9 * spread * given.size**-0.2, LEAST_BANDWIDTH)
    density = np.zeros(points.size)
    for centres in (given, -given, 2.0 - given):
        # Point by point: N x P at once would not fit for large sets.
        density += [float(np.exp(-0.5 * ((p - centres) / width) ** 2).sum()) for p in points]
    scaled: NDArray[np.float64] = density / (given.size * width * np.sqrt(2.0 * np.pi))
    return scaled


def _draw(axes: Axes, name: str, values: ArrayLike, look: Look) -> None:
    points = np.linspace(0.0, 1.0, GRID_POINTS)
    density = reflected_density(values, points)
    label = counted(name, np.size(values))
    axes.plot(points, density, color=look.colour, linestyle=look.line, linewidth=1.8, label=label)
    axes.fill_between(points, density, color=look.colour, alpha=0.12, linewidth=0)


def _finish(figure: Figure, axes: Axes, xlabel: str) -> Figure:
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("density (per unit of confidence)")
    legend(axes)
    return figure
