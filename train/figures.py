"""Figures of an evaluation: where the scores of known and unknown images lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.evaluate import Evaluation

SCORES_FIGURE = "scores.png"

_IN_COLOUR = "#2b6cb0"
_OUT_COLOURS = ("#c05621", "#6b46c1", "#2c7a7b", "#b83280", "#4a5568")


def draw_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Draw a histogram per score, test images against each out-of-distribution set, as PNG.

    Returns
    -------
    Path
        The file, `scores.png` in `folder`.
    """
    scores = list(evaluation.test_scores)
    figure = Figure(figsize=(7.5, 2.9 * len(scores)), layout="constrained")
    for row, name in enumerate(scores):
        axes = figure.add_subplot(len(scores), 1, row + 1)
        _draw_score(axes, evaluation, name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    path = folder / SCORES_FIGURE
    figure.savefig(path, dpi=120)
    return path


def _draw_score(axes: Axes, evaluation: Evaluation, name: str) -> None:
    inside = evaluation.test_scores[name]
    outside = {ood_set: scores[name] for ood_set, scores in evaluation.ood_scores.items()}
    everything = np.concatenate([inside, *outside.values()])
    edges = np.linspace(float(everything.min()), float(everything.max()) + 1e-9, 41)
    _fill(axes, inside, edges, label=f"known classes ({len(inside)})", colour=_IN_COLOUR)
    for number, (ood_set, values) in enumerate(outside.items()):
        colour = _OUT_COLOURS[number % len(_OUT_COLOURS)]
        _fill(axes, values, edges, label=f"{ood_set} ({len(values)})", colour=colour)
    lowest_kept = float(np.sort(inside)[int(0.05 * len(inside))])
    axes.margins(y=0.15)
    axes.axvline(lowest_kept, color="#1a202c", linewidth=1, linestyle="--")
    axes.annotate(
        "95 % of the known images →",
        (lowest_kept, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(5, -12),
        textcoords="offset points",
        fontsize=9,
    )
    axes.set_xlabel(f"{name} (larger = more in-distribution)")
    axes.set_ylabel("share of the set")
    axes.spines[["top", "right"]].set_visible(False)


def _fill(
    axes: Axes, values: NDArray[np.float32], edges: NDArray[np.float64], *, label: str, colour: str
) -> None:
    weights = np.full(len(values), 1 / len(values))
    axes.hist(values, bins=list(edges), weights=weights, color=colour, alpha=0.5, label=label)
