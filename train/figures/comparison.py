"""Methods beside each other: a figure over seeds, and a grid of methods by scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from train.figures.style import BLACK, BLUE, VERMILION, tidy


def method_dots(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    best: Mapping[str, Mapping[str, tuple[str, float]]],
    *,
    score: str,
) -> Figure:
    """Draw AUROC by method, a panel for each out-of-distribution set.

    Parameters
    ----------
    values : mapping of str to mapping of str to sequence of float
        Set name to method to AUROC of each seed, by one score.
    best : mapping of str to mapping of str to (str, float)
        Set name to method to the score whose mean AUROC is largest, and that mean.
    score : str
        The one of `values`.

    Raises
    ------
    ValueError
        There is nothing to draw.
    """
    if not values:
        raise ValueError("there is no out-of-distribution set to draw")
    rows = max(len(methods) for methods in values.values())
    size = (2.2 + 2.9 * len(values), 1.3 + 0.34 * rows)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (ood_set, methods) in zip(panels, values.items(), strict=True):
        _draw_panel(axes, methods, best[ood_set], title=ood_set, score=score)
    panels[0].set_yticks(range(rows), labels=list(next(iter(values.values()))))
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_panel(
    axes: Axes,
    methods: Mapping[str, Sequence[float]],
    best: Mapping[str, tuple[str, float]],
    *,
    title: str,
    score: str,
) -> None:
    tidy(axes)
    for row, (method, seeds) in enumerate(methods.items()):
        first = row == 0
        axes.plot(
            seeds, np.full(len(seeds), row), linestyle="", marker="|", markersize=9, color=BLUE,
            label=f"{score}, each seed" if first else None,
        )  # fmt: skip
        axes.plot(
            [float(np.mean(seeds))], [row], marker="o", markersize=7, linestyle="", color=BLUE,
            label=f"{score}, mean" if first else None,
        )  # fmt: skip
        name, value = best[method]
        axes.plot(
            [value], [row], marker="D", markersize=6, linestyle="", markerfacecolor="none",
            color=VERMILION, label="best score, mean" if first else None,
        )  # fmt: skip
        axes.annotate(
            name, (value, row), xytext=(0, 6), textcoords="offset points", fontsize=6.5,
            ha="center", color=BLACK,
        )  # fmt: skip
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("AUROC")
    axes.margins(x=0.12)


def score_grid(
    means: ArrayLike, *, methods: Sequence[str], scores: Sequence[str], title: str
) -> Figure:
    """Draw a grid of numbers, methods by scores, darker where AUROC is larger.

    Parameters
    ----------
    means : (M, S) float
        AUROC, in [0, 1]; NaN where a method has no such score, which is left blank.
    methods, scores : sequence of str
        Names of the rows and the columns.
    title : str
        Of the out-of-distribution set.

    Raises
    ------
    ValueError
        The shape does not fit the names.
    """
    grid: NDArray[np.float64] = np.asarray(means, dtype=np.float64)
    if grid.shape != (len(methods), len(scores)):
        raise ValueError(f"`means` is {grid.shape}, expected {(len(methods), len(scores))}")
    size = (2.4 + 0.52 * len(scores), 1.6 + 0.34 * len(methods))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    lowest = min(0.5, float(np.nanmin(grid)))
    # A map of one hue, from light to dark, reads the same without colour.
    shown = axes.imshow(grid, cmap="Blues", vmin=lowest, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(scores)), labels=list(scores), rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(methods)), labels=list(methods), fontsize=8)
    middle = (lowest + 1.0) / 2
    for row, column in np.ndindex(grid.shape):
        value = float(grid[row, column])
        if np.isnan(value):
            continue
        colour = "white" if value > middle + 0.1 else "black"
        axes.text(
            column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour
        )
    axes.set_title(f"AUROC in percent on {title}, mean over seeds", fontsize=10)
    axes.set_xlabel("score")
    axes.set_ylabel("method")
    figure.colorbar(shown, ax=axes, label="AUROC", shrink=0.9)
    return figure
