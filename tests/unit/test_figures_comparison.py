"""Figures that set methods beside each other."""

from __future__ import annotations

import numpy as np
import pytest

from train.figures.comparison import method_dots, score_grid
from train.figures.style import to_png

VALUES = {
    "near": {"standard": [0.7, 0.8], "MixOE": [0.75, 0.85]},
    "far": {"standard": [0.9, 0.95], "MixOE": [0.97, 0.99]},
}
BEST = {
    "near": {"standard": ("knn", 0.82), "MixOE": ("energy", 0.8)},
    "far": {"standard": ("vim", 0.99), "MixOE": ("knn", 0.995)},
}


def test_a_panel_for_each_set_with_means_and_seeds_where_they_are() -> None:
    figure = method_dots(VALUES, BEST, score="energy")
    near, far = figure.axes
    assert [axes.get_title() for axes in (near, far)] == ["near", "far"]
    assert [label.get_text() for label in near.get_yticklabels()] == ["standard", "MixOE"]
    points = [
        (round(float(x), 6), float(y))
        for line in near.get_lines()
        for x, y in np.column_stack([line.get_xdata(), line.get_ydata()])
    ]
    # Two seeds, their mean and the best score of each method.
    assert sorted(points) == sorted(
        [(0.7, 0), (0.8, 0), (0.75, 0), (0.82, 0), (0.75, 1), (0.85, 1), (0.8, 1), (0.8, 1)]
    )
    assert near.get_xlabel() == "AUROC"
    assert [text.get_text() for text in far.texts] == ["vim", "knn"]
    assert to_png(figure) == to_png(method_dots(VALUES, BEST, score="energy"))


def test_the_grid_prints_each_number_in_percent() -> None:
    figure = score_grid(
        [[0.5, 0.914], [0.75, 1.0]], methods=["standard", "MixOE"], scores=["msp", "knn"],
        title="near",
    )  # fmt: skip
    assert [text.get_text() for text in figure.axes[0].texts] == ["50", "91", "75", "100"]
    assert "near" in figure.axes[0].get_title()


def test_nothing_to_draw_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no out-of-distribution set to draw"):
        method_dots({}, {}, score="msp")
    with pytest.raises(ValueError, match=r"`means` is \(1, 2\), expected \(1, 1\)"):
        score_grid([[0.5, 0.6]], methods=["a"], scores=["b"], title="near")
