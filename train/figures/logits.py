"""What the logits look like: their norms, their plane of largest variance, single images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from train.figures.style import INSIDE, Look, counted, fill_shares, legend, new_axes, outside, tidy

BINS = 40
MOST_POINTS = 1000
"""Points of a set in a scatter plot; every k-th image of a larger one is drawn."""

MOST_NAMES = 12
"""Classes up to which the axis of a panel names them."""

_SCATTER_ALPHA = 0.55


@dataclass(frozen=True, eq=False)
class Principal:
    """The two directions of largest variance.

    Attributes
    ----------
    mean : (K,) float64
    axes : (2, K) float64
        Orthonormal rows; of each, the entry of largest magnitude is positive.
    shares : (2,) float64
        Part of the total variance along each, in [0, 1].
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    shares: NDArray[np.float64]

    def project(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return (N, 2) coordinates of (N, K) logits, in their unit."""
        placed: NDArray[np.float64] = (np.asarray(logits, np.float64) - self.mean) @ self.axes.T
        return placed


def principal_axes(logits: ArrayLike) -> Principal:
    """Return the principal axes of logits.

    Parameters
    ----------
    logits : (N, K) float
        K >= 2, N >= 1, finite.

    Raises
    ------
    ValueError
        Another shape, or NaN or infinity among them.
    """
    values = _checked("logits", logits)
    mean = values.mean(axis=0)
    _, singular, rows = np.linalg.svd(values - mean, full_matrices=True)
    variances = np.zeros(values.shape[1])
    variances[: singular.size] = singular**2
    total = float(variances.sum())
    axes = rows[:2]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return Principal(
        mean=mean,
        axes=axes * np.where(largest < 0, -1.0, 1.0),
        shares=variances[:2] / total if total > 0 else np.zeros(2),
    )


def logit_norms(inside: ArrayLike, sets: Mapping[str, ArrayLike]) -> Figure:
    """Draw the histogram of the L2 norms of logits, known images against each set.

    Parameters
    ----------
    inside : (N, K) float
        Logits of in-distribution images.
    sets : mapping of str to (M, K) float
        Those of each out-of-distribution set.

    Raises
    ------
    ValueError
        Another shape, or NaN or infinity among them.

    References
    ----------
    Logit MixOE (arXiv 2509.11892), figure 3.
    """
    norms = {"known classes": inside, **sets}
    lengths = {
        name: np.linalg.norm(_checked(name, logits), axis=1) for name, logits in norms.items()
    }
    top = max(float(values.max()) for values in lengths.values())
    edges = np.linspace(0.0, top or 1.0, BINS + 1)
    figure, axes = new_axes()
    for number, (name, values) in enumerate(lengths.items()):
        look = INSIDE if number == 0 else outside(number - 1)
        shares = np.histogram(values, bins=edges)[0] / values.size
        fill_shares(axes, shares, edges, look=look, label=counted(name, values.size))
    axes.set_xlabel("L2 norm of the logits")
    axes.set_ylabel("share of the set")
    axes.set_ylim(bottom=0)
    legend(axes)
    return figure


def logit_plane(inside: ArrayLike, sets: Mapping[str, ArrayLike]) -> Figure:
    """Draw logits in the plane of their two principal axes, those of all sets taken together.

    Parameters
    ----------
    inside, sets
        See `logit_norms`.

    Raises
    ------
    ValueError
        Another shape, or NaN or infinity among them.

    References
    ----------
    Logit MixOE (arXiv 2509.11892), figure 4.
    """
    every = {"known classes": _checked("known classes", inside)}
    every |= {name: _checked(name, logits) for name, logits in sets.items()}
    plane = principal_axes(np.concatenate(list(every.values())))
    figure, axes = new_axes(width=5.2, height=4.8)
    for number, (name, logits) in enumerate(every.items()):
        look = INSIDE if number == 0 else outside(number - 1)
        step = -(-len(logits) // MOST_POINTS)
        x, y = plane.project(logits[::step]).T
        axes.scatter(
            x, y, s=14, marker=look.marker, color=look.colour, alpha=_SCATTER_ALPHA, linewidths=0,
            label=counted(name, len(logits)), rasterized=True,
        )  # fmt: skip
    zero = plane.project(np.zeros((1, len(plane.mean))))[0]
    axes.plot(
        *zero, marker="+", markersize=14, color="black", markeredgewidth=2, linestyle="none",
        label="all logits 0",
    )  # fmt: skip
    axes.set_xlabel(f"first principal axis ({100 * plane.shares[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second principal axis ({100 * plane.shares[1]:.0f} % of the variance)")
    legend(axes)
    return figure


def sample_logits(logits: Mapping[str, ArrayLike], *, classes: tuple[str, ...]) -> Figure:
    """Draw the logits of single inputs, one panel each on a common scale.

    Parameters
    ----------
    logits : mapping of str to (K,) float
        What the input is, such as "known image", "unknown image", "mixed images" and "mixed
        logits", to its logits.
    classes : tuple of str
        K names, in the order of the logits.

    Raises
    ------
    ValueError
        Logits are not K finite numbers.

    References
    ----------
    Logit MixOE (arXiv 2509.11892), figures 5 and 6.
    """
    rows = {name: np.asarray(values, dtype=np.float64) for name, values in logits.items()}
    for name, values in rows.items():
        if values.shape != (len(classes),) or not np.isfinite(values).all():
            raise ValueError(
                f"the logits of `{name}` have shape {values.shape}, or are not finite; expected "
                f"({len(classes)},), finite"
            )
    # Two in a row, so that the page of a telephone does not shrink them beyond reading.
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(5.2, 2.1 * lines + 0.2), layout="constrained", facecolor="white")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
    for number, (name, values) in enumerate(rows.items()):
        look = INSIDE if number == 0 else outside(number - 1)
        _draw_bars(panels[number], values, look, classes=classes)
        panels[number].set_title(name, fontsize=9)
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("logit")
    return figure


def _draw_bars(
    axes: Axes, values: NDArray[np.float64], look: Look, *, classes: tuple[str, ...]
) -> None:
    tidy(axes)
    places = np.arange(len(classes))
    axes.bar(places, values, color=look.colour, hatch=look.hatch, edgecolor="white")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("class")
    if len(classes) <= MOST_NAMES:
        axes.set_xticks(places, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.tick_params(axis="x", labelsize=8)


def _checked(name: str, logits: ArrayLike) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or len(values) == 0 or values.shape[1] < 2:
        raise ValueError(f"`{name}` has shape {values.shape}; expected (N, K), N >= 1, K >= 2")
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` has NaN or infinity among its logits; expected finite ones")
    return values
