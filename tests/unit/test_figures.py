"""Figures: what is drawn is what was given; labels, legends, looks and files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from oodserve.errors import NonFiniteScore
from train.figures.curves import risk_coverage_curves, roc, roc_points
from train.figures.densities import (
    confidence_densities,
    interpolation_densities,
    reflected_density,
)
from train.figures.images import class_activation, saliency_overlays, synthesised_outliers
from train.figures.logits import logit_norms, logit_plane, principal_axes, sample_logits
from train.figures.scores import score_histogram, score_histograms
from train.figures.style import INSIDE, LONGEST_NAME, counted, outside, to_png, to_svg

RNG = np.random.default_rng(0)
INSIDE_SCORES = RNG.normal(3, 1, 120)
SETS = {"near": RNG.normal(1.5, 1, 60), "far": RNG.normal(0, 1, 40)}
CONFIDENT = RNG.beta(8, 1, 120)
LESS = {"near": RNG.beta(4, 2, 60), "far": RNG.beta(2, 4, 40)}
LOGITS = RNG.normal(0, 3, (120, 5))
OTHER_LOGITS = {"near": RNG.normal(0, 2, (60, 5)), "far": RNG.normal(0, 1, (40, 5))}
WRONG = RNG.random(120) < 0.2
PICTURES = RNG.random((3, 8, 8, 3))
MAPS, HEAD = RNG.normal(size=(3, 6, 4, 2)), RNG.normal(size=(5, 6))

DRAWN: dict[str, Callable[[], Figure]] = {
    "confidence_densities": lambda: confidence_densities(CONFIDENT, LESS),
    "interpolation_densities": lambda: interpolation_densities({1.0: CONFIDENT, 0.5: LESS["far"]}),
    "score_histogram": lambda: score_histogram(INSIDE_SCORES, SETS, score="energy", tau=1.2),
    "roc": lambda: roc(INSIDE_SCORES, SETS, score="energy"),
    "risk_coverage_curves": lambda: risk_coverage_curves(
        {"energy": INSIDE_SCORES}, WRONG, coverage_at_tau={"energy": 0.9}
    ),
    "logit_norms": lambda: logit_norms(LOGITS, OTHER_LOGITS),
    "logit_plane": lambda: logit_plane(LOGITS, OTHER_LOGITS),
    "sample_logits": lambda: sample_logits(
        {"known": LOGITS[0], "unknown": LOGITS[1], "mixed": LOGITS[2]}, classes=tuple("abcde")
    ),
    "synthesised_outliers": lambda: synthesised_outliers(PICTURES, PICTURES**2, titles="abc"),
    "saliency_overlays": lambda: saliency_overlays(
        PICTURES, MAPS, HEAD, [0, 1, 2], titles=["a", "b", "c"]
    ),
}
CHARTS = [name for name in DRAWN if name not in {"synthesised_outliers", "saliency_overlays"}]


def legend_texts(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("name", DRAWN)
def test_each_is_drawn_the_same_way_twice(name: str) -> None:
    first, again = to_svg(DRAWN[name]()), to_svg(DRAWN[name]())
    assert first == again
    assert first.startswith(b"<?xml")


@pytest.mark.parametrize("name", CHARTS)
def test_axes_are_labelled(name: str) -> None:
    axes = DRAWN[name]().axes[0]
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_looks_differ_in_every_part() -> None:
    looks = [INSIDE, *(outside(number) for number in range(7))]
    for part in ("colour", "line", "hatch", "marker"):
        assert len({getattr(look, part) for look in looks}) == len(looks), part
    assert outside(7) == outside(0)


def test_long_names_of_sets_are_cut_and_fit() -> None:
    assert counted("x" * LONGEST_NAME, 3) == "x" * LONGEST_NAME + " (3)"
    long = "a name that nobody would give to a folder of images"
    assert counted(long, 12).startswith(long[: LONGEST_NAME - 1] + "…")
    # A layout that does not fit warns, and warnings are errors here.
    sets = {f"{number} {long}": SETS["near"] for number in range(9)}
    to_png(score_histogram(INSIDE_SCORES, sets, score="energy"))
    to_png(roc(INSIDE_SCORES, sets, score="energy"))


# Densities.


@pytest.mark.parametrize(
    "values",
    [CONFIDENT, np.array([0.3]), np.ones(50), np.zeros(3), np.r_[np.ones(80), 0.2, 0.4]],
    ids=["beta", "one", "all 1", "all 0", "nearly all 1"],
)
def test_a_density_has_mass_one_within_the_unit_interval(values: NDArray[np.float64]) -> None:
    points = np.linspace(0, 1, 20_001)
    density = reflected_density(values, points)
    assert (density >= 0).all()
    assert trapezoid(density, points) == pytest.approx(1, abs=1e-3)


def test_far_from_the_ends_the_density_is_scipys() -> None:
    values = np.clip(RNG.normal(0.5, 0.05, 300), 0, 1)
    points = np.linspace(0.3, 0.7, 50)
    upper, lower = np.quantile(values, [0.75, 0.25])
    width = 0.9 * min(values.std(), (upper - lower) / 1.34) * 300**-0.2
    expected = gaussian_kde(values, bw_method=width / values.std(ddof=1))(points)
    assert reflected_density(values, points) == pytest.approx(expected, rel=1e-9)


def test_what_is_no_confidence_is_refused() -> None:
    bad: list[list[float]] = [[], [0.5, 1.2], [-0.1], [np.nan]]
    for values in bad:
        with pytest.raises(ValueError, match=r"`values` of shape .* are not numbers in \[0, 1\]"):
            confidence_densities(values, {})


def test_densities_name_sets_and_counts() -> None:
    assert legend_texts(DRAWN["confidence_densities"]()) == [
        "known classes (120)", "near (60)", "far (40)",
    ]  # fmt: skip
    texts = legend_texts(interpolation_densities({0.0: [0.1], 0.5: [0.2], 1.0: [0.9]}))
    assert texts == ["λ = 1, known (1)", "λ = 0.5 (1)", "λ = 0, unknown (1)"]


# Scores, ROC, risk.


def test_histograms_share_edges_and_sum_to_one() -> None:
    axes = score_histogram(INSIDE_SCORES, SETS, score="energy", tau=1.25).axes[0]
    stairs = [patch for patch in axes.patches if str(patch.get_label()).endswith(")")]
    assert [patch.get_label() for patch in stairs] == [
        "known classes (120)", "near (60)", "far (40)",
    ]  # fmt: skip
    for patch in stairs:
        assert sum(patch.get_data().values) == pytest.approx(1)  # type: ignore[attr-defined]
    assert [line.get_xdata()[0] for line in axes.lines] == [1.25]  # type: ignore[index]
    assert any("τ = 1.25" in text.get_text() for text in axes.texts)


def test_equal_scores_and_one_image_are_drawn() -> None:
    for inside, sets in (([2.0] * 5, {"x": [2.0]}), ([1.0], {"x": [0.0]})):
        to_png(score_histogram(inside, sets, score="msp", tau=2.0))
        to_png(roc(inside, sets, score="msp"))


def test_a_panel_for_each_score() -> None:
    figure = score_histograms(
        {"msp": INSIDE_SCORES, "energy": INSIDE_SCORES},
        {"near": {"msp": SETS["near"], "energy": SETS["near"]}},
        tau={"energy": 1.0},
    )
    assert [len(axes.lines) for axes in figure.axes] == [0, 1]
    assert [axes.get_xlabel().split()[0] for axes in figure.axes] == ["msp", "energy"]


def test_scores_that_cannot_be_drawn_name_their_set() -> None:
    with pytest.raises(ValueError, match=r"the scores of `far` have shape .*, or are not finite"):
        score_histogram([1.0], {"far": [np.nan]}, score="msp")
    with pytest.raises(ValueError, match=r"the scores of `known classes` have shape \(0,\)"):
        score_histogram([], {"far": [1.0]}, score="msp")
    with pytest.raises(NonFiniteScore, match="in `out_scores` are NaN or infinite"):
        roc([1.0], {"far": [np.nan]}, score="msp")


@pytest.mark.parametrize("ties", [False, True])
def test_the_roc_curve_is_scikit_learns(ties: bool) -> None:
    inside, out = INSIDE_SCORES, SETS["near"]
    if ties:
        inside, out = np.round(inside), np.round(out)
    labels = np.r_[np.zeros(inside.size), np.ones(out.size)]
    fpr, tpr, _ = roc_curve(labels, -np.r_[inside, out], drop_intermediate=False)
    got_fpr, got_tpr = roc_points(inside, out)
    assert got_fpr == pytest.approx(fpr)
    assert got_tpr == pytest.approx(tpr)


def test_the_mark_at_tau_lies_on_the_curve() -> None:
    axes = DRAWN["risk_coverage_curves"]().axes[0]
    curve, mark = axes.lines[0], axes.lines[1]
    at = (mark.get_xdata()[0], mark.get_ydata()[0])  # type: ignore[index]
    assert at in set(zip(np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata()), strict=True))
    assert at[0] == pytest.approx(0.9, abs=0.01)


# Logits.


def test_principal_axes_are_scikit_learns() -> None:
    made, expected = principal_axes(LOGITS), PCA(2).fit(LOGITS)
    assert made.shares == pytest.approx(expected.explained_variance_ratio_)
    placed, theirs = made.project(LOGITS), expected.transform(LOGITS)
    for axis in range(2):
        sign = np.sign(placed[0, axis] * theirs[0, axis])
        assert placed[:, axis] == pytest.approx(sign * theirs[:, axis])
        assert made.axes[axis, np.abs(made.axes[axis]).argmax()] > 0


def test_the_plane_of_one_image_and_of_equal_ones_exists() -> None:
    for logits in (np.ones((1, 4)), np.ones((7, 2))):
        made = principal_axes(logits)
        assert (made.shares == 0).all()
        assert made.project(logits) == pytest.approx(np.zeros((len(logits), 2)))
        to_png(logit_plane(logits, {"far": np.zeros((1, logits.shape[1]))}))


def test_bars_are_the_logits() -> None:
    rows = {"known": LOGITS[0], "mixed": LOGITS[1]}
    figure = sample_logits(rows, classes=tuple("abcde"))
    for axes, values in zip(figure.axes, rows.values(), strict=True):
        heights = [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
        assert heights == pytest.approx(values)
    assert to_hex(figure.axes[0].patches[0].get_facecolor()) == INSIDE.colour.lower()


@pytest.mark.parametrize("draw", [logit_norms, logit_plane])
def test_logits_of_another_shape_are_refused(draw: Callable[..., Figure]) -> None:
    with pytest.raises(ValueError, match=r"`known classes` has shape \(3,\); expected \(N, K\)"):
        draw(np.zeros(3), {})
    with pytest.raises(ValueError, match=r"`far` has shape \(0, 4\); expected \(N, K\), N >= 1"):
        draw(np.zeros((2, 4)), {"far": np.zeros((0, 4))})
    with pytest.raises(ValueError, match="`far` has NaN or infinity among its logits"):
        draw(np.zeros((2, 4)), {"far": np.full((1, 4), np.inf)})


def test_sample_logits_are_one_for_each_class() -> None:
    with pytest.raises(ValueError, match=r"the logits of `known` have shape \(5,\).*\(2,\), fini"):
        sample_logits({"known": LOGITS[0]}, classes=("a", "b"))


# Pictures.


def test_class_activation_is_a_loop_over_features() -> None:
    classes = np.array([4, 0, 2])
    expected = np.zeros((3, 4, 2))
    for image in range(3):
        for feature in range(6):
            expected[image] += HEAD[classes[image], feature] * MAPS[image, feature]
    got = class_activation(MAPS, HEAD, classes)
    assert got == pytest.approx(expected)
    # Its mean is the logit of the averaged features.
    pooled = MAPS.mean(axis=(2, 3))
    assert got.mean(axis=(1, 2)) == pytest.approx((pooled @ HEAD.T)[np.arange(3), classes])


def test_an_overlay_without_strength_is_the_image() -> None:
    figure = saliency_overlays(PICTURES, MAPS, HEAD, [0, 1, 2], titles="abc", strength=0.0)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    for column in range(3):
        assert shown[3 + column] == pytest.approx(shown[column])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]


def test_the_brightest_place_is_where_the_activation_is() -> None:
    maps = np.zeros((1, 1, 4, 4))
    maps[0, 0, 3, 0] = 1.0
    black = np.zeros((1, 16, 16, 3))
    figure = saliency_overlays(black, maps, [[1.0]], [0], titles=["x"], strength=1.0)
    brightness = np.asarray(figure.axes[1].images[0].get_array()).sum(axis=2)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert row >= 12
    assert column <= 3


def test_the_change_is_the_mean_over_channels() -> None:
    before = np.zeros((1, 2, 2, 3))
    after = before.copy()
    after[0, 1, 0] = [0.3, -0.6, 0.0]
    figure = synthesised_outliers(before, after)
    assert to_png(figure).startswith(b"\x89PNG")
    change = np.asarray(figure.axes[2].images[0].get_array())
    assert change == pytest.approx(np.array([[0, 0], [0.3, 0]]))
    to_png(synthesised_outliers(before, before))  # nothing changed: no division by zero


def test_pictures_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`sources` has shape \(8, 8, 3\); expected \(N, H, W"):
        synthesised_outliers(PICTURES[0], PICTURES)
    with pytest.raises(ValueError, match=r"`sources` has shape .* and there are 2 titles; expect"):
        synthesised_outliers(PICTURES, PICTURES, titles="ab")
    with pytest.raises(ValueError, match=r"`maps` has shape .*, `weights` \(5, 6\), `classes`"):
        class_activation(MAPS[:, :2], HEAD, [0, 1, 2])
    with pytest.raises(ValueError, match="`classes` go from 0 to 5; 5 exist"):
        class_activation(MAPS, HEAD, [0, 1, 5])
    with pytest.raises(ValueError, match="there are 3 images, 3 maps and 1 titles; expected"):
        saliency_overlays(PICTURES, MAPS, HEAD, [0, 1, 2], titles=["a"])
    with pytest.raises(ValueError, match=r"`strength` = 1\.5 is not in \[0, 1\]"):
        saliency_overlays(PICTURES, MAPS, HEAD, [0, 1, 2], titles="abc", strength=1.5)
