"""Curves over all thresholds: ROC, and risk against coverage."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from oodserve.metrics import auroc, risk_coverage
from train.figures.style import INSIDE, legend, new_axes, outside, shortened


def roc_points(
    in_scores: ArrayLike, out_scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ROC curve with outliers as positives, a point for each distinct score.

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images; larger = more in-distribution.
    out_scores : (M,) float
        Of out-of-distribution images.

    Returns
    -------
    tuple of (T + 1,) float64
        Shares of known images and of outliers that are flagged, both ascending from 0 to 1.
    """
    inside, out = np.sort(np.asarray(in_scores)), np.sort(np.asarray(out_scores))
    thresholds = np.unique(np.concatenate([inside, out]))
    flagged = np.searchsorted(inside, thresholds, side="right") / inside.size
    caught = np.searchsorted(out, thresholds, side="right") / out.size
    return np.r_[0.0, flagged], np.r_[0.0, caught]


def roc(in_scores: ArrayLike, sets: Mapping[str, ArrayLike], *, score: str) -> Figure:
    """Draw the ROC curve of one score for each out-of-distribution set, outliers as positives.

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images; larger = more in-distribution.
    sets : mapping of str to (M,) float
        Scores of each set.
    score : str
        Its name, for the axes.

    Raises
    ------
    ValueError, NonFiniteScore
        See `oodserve.metrics.auroc`.
    """
    figure, axes = new_axes(width=4.8, height=4.6)
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":", label="chance")
    axes.axhline(0.95, color="#888888", linewidth=0.8)
    axes.annotate("95 % of the outliers caught", (0.99, 0.945), ha="right", va="top", fontsize=8)
    for number, (name, values) in enumerate(sets.items()):
        look = outside(number)
        area = auroc(in_scores, values)
        flagged, caught = roc_points(in_scores, values)
        axes.plot(
            flagged, caught, color=look.colour, linestyle=look.line, linewidth=1.8,
            label=f"{shortened(name)}: AUROC {100 * area:.1f} %",
        )  # fmt: skip
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.set_xlabel(f"known images flagged by {score} (share)")
    axes.set_ylabel("outliers flagged (share)")
    axes.legend(loc="lower right", frameon=False, fontsize=9, handlelength=2.6)
    return figure


def risk_coverage_curves(
    scores: Mapping[str, ArrayLike],
    wrong: ArrayLike,
    *,
    coverage_at_tau: Mapping[str, float] | None = None,
) -> Figure:
    """Draw selective risk against coverage on known images, a curve for each score.

    Parameters
    ----------
    scores : mapping of str to (N,) float
        Score name to scores of the same images; larger = answered sooner.
    wrong : (N,) bool
        Whether each prediction is wrong.
    coverage_at_tau : mapping of str to float, or None
        Score name to the coverage of its threshold, marked on the curve; a score may be missing.

    Raises
    ------
    ValueError, NonFiniteScore
        See `oodserve.metrics.risk_coverage`.
    """
    figure, axes = new_axes()
    mistakes = np.asarray(wrong)
    for number, (name, values) in enumerate(scores.items()):
        look = INSIDE if number == 0 else outside(number - 1)
        curve = risk_coverage(values, mistakes)
        axes.step(
            curve.coverage, curve.risk, where="post", color=look.colour, linestyle=look.line,
            linewidth=1.8, label=name,
        )  # fmt: skip
        at = (coverage_at_tau or {}).get(name)
        if at is not None and at > 0:
            place = int(np.argmin(np.abs(curve.coverage - at)))
            axes.plot(
                curve.coverage[place], curve.risk[place], marker=look.marker, color=look.colour,
                markersize=8, markeredgecolor="black", linestyle="none", label=f"{name} at τ",
            )  # fmt: skip
    axes.axhline(
        float(mistakes.mean()), color="#888888", linewidth=0.9, linestyle=":", label="error rate"
    )
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coverage (share of known images answered)")
    axes.set_ylabel("selective risk (share of answers wrong)")
    legend(axes)
    return figure
