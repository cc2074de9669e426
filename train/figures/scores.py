"""Where the scores of known and unknown images lie, and where tau cuts them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from train.figures.style import INSIDE, Look, counted, fill_shares, legend, new_axes, outside, tidy

BINS = 40


def score_histogram(
    inside: ArrayLike, sets: Mapping[str, ArrayLike], *, score: str, tau: float | None = None
) -> Figure:
    """Draw the histogram of one score: known images against each out-of-distribution set.

    Parameters
    ----------
    inside : (N,) float
        Scores of in-distribution images; larger = more in-distribution.
    sets : mapping of str to (M,) float
        Those of each set.
    score : str
        Its name, for the axis.
    tau : float or None
        The threshold, drawn as a line.

    Raises
    ------
    ValueError
        A list is empty or not finite.
    """
    figure, axes = new_axes()
    _draw_score(axes, inside, sets, score=score, tau=tau)
    legend(axes)
    return figure


def score_histograms(
    inside: Mapping[str, ArrayLike],
    sets: Mapping[str, Mapping[str, ArrayLike]],
    *,
    tau: Mapping[str, float],
) -> Figure:
    """Draw the histogram of each score, one below the other.

    Parameters
    ----------
    inside : mapping of str to (N,) float
        Score name to scores of in-distribution images.
    sets : mapping of str to mapping of str to (M,) float
        Set name to score name to scores.
    tau : mapping of str to float
        Score name to threshold; a score may be missing.
    """
    figure = Figure(figsize=(7.5, 2.9 * len(inside)), layout="constrained", facecolor="white")
    for row, (score, values) in enumerate(inside.items()):
        axes = figure.add_subplot(len(inside), 1, row + 1)
        tidy(axes)
        found = {name: scores[score] for name, scores in sets.items()}
        _draw_score(axes, values, found, score=score, tau=tau.get(score))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _draw_score(
    axes: Axes, inside: ArrayLike, sets: Mapping[str, ArrayLike], *, score: str, tau: float | None
) -> None:
    known = _checked("known classes", inside)
    unknown = {name: _checked(name, values) for name, values in sets.items()}
    everything = np.concatenate([known, *unknown.values()])
    low, high = float(everything.min()), float(everything.max())
    if low == high:  # one bar, not one without width
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    _fill(axes, "known classes", known, edges, INSIDE)
    for number, (name, values) in enumerate(unknown.items()):
        _fill(axes, name, values, edges, outside(number))
    if tau is not None:
        _mark(axes, tau)
    axes.set_xlabel(f"{score} (larger = more in-distribution)")
    axes.set_ylabel("share of the set")


def _mark(axes: Axes, tau: float) -> None:
    axes.margins(y=0.15)
    axes.axvline(tau, color="black", linewidth=1.2)
    for text, offset, side in (("in →", 5, "left"), ("← out", -5, "right")):
        axes.annotate(
            text, (tau, 1.0), xycoords=("data", "axes fraction"), xytext=(offset, -11),
            textcoords="offset points", ha=side, fontsize=9,
        )  # fmt: skip
    axes.annotate(
        f"τ = {tau:.4g}", (tau, 1.0), xycoords=("data", "axes fraction"), xytext=(5, -23),
        textcoords="offset points", fontsize=9,
    )  # fmt: skip


def _fill(
    axes: Axes, name: str, values: NDArray[np.float64], edges: NDArray[np.float64], look: Look
) -> None:
    shares = np.histogram(values, bins=edges)[0] / values.size
    fill_shares(axes, shares, edges, look=look, label=counted(name, values.size))


def _checked(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"the scores of `{name}` have shape {values.shape}, or are not finite; expected (N,), "
            "N >= 1, finite"
        )
    return values
