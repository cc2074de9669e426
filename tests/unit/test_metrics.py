"""Metrics: scikit-learn, hand-computed cases, ties, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodserve.errors import NonFiniteScore
from oodserve.metrics import (
    OodMetrics,
    accuracy,
    aupr,
    auroc,
    bootstrap_interval,
    evaluate_ood,
    fpr_at_95_tpr_ood,
    ood_miss_at_95_id,
)

RNG = np.random.default_rng(0)
DIAGONAL = np.arange(20.0)

CASES: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
    "gauss 5000 v 500": (RNG.normal(2, 1, 5000), RNG.normal(0, 1, 500)),
    "small 30 v 30": (RNG.normal(1, 1, 30), RNG.normal(0, 1, 30)),
    "heavy ties": (
        RNG.integers(0, 8, 700).astype(np.float64),
        RNG.integers(-3, 6, 300).astype(np.float64),
    ),
    "tied diagonal": (DIAGONAL, DIAGONAL),
    "all tied": (np.zeros(9), np.zeros(4)),
    "separated": (np.arange(10.0, 40.0), np.arange(10.0)),
    "inverted": (np.arange(10.0), np.arange(10.0, 40.0)),
    "one each": (np.array([1.0]), np.array([0.0])),
    "like distances": (-RNG.normal(600, 80, 2000), -RNG.normal(900, 80, 2000)),
    "float32 saturated": (
        np.minimum(RNG.normal(1, 0.1, 400), 1).astype(np.float32).astype(np.float64),
        np.minimum(RNG.normal(0.9, 0.1, 400), 1).astype(np.float32).astype(np.float64),
    ),
}
EVERY_CASE = pytest.mark.parametrize("name", CASES)


def first_at_level(
    positive: NDArray[np.float64], negative: NDArray[np.float64], level: float
) -> float:
    """The false positive rate at scikit-learn's first threshold with TPR >= level."""
    labels = np.r_[np.ones(positive.size), np.zeros(negative.size)]
    scores = np.r_[positive, negative]
    # The default drops collinear points, which moves the answer where scores are tied.
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= level)])


@EVERY_CASE
def test_auroc_is_scikit_learns(name: str) -> None:
    inside, outside = CASES[name]
    labels = np.r_[np.ones(inside.size), np.zeros(outside.size)]
    expected = roc_auc_score(labels, np.r_[inside, outside])
    assert auroc(inside, outside) == pytest.approx(expected, abs=1e-12)


@EVERY_CASE
def test_aupr_is_scikit_learns_average_precision(name: str) -> None:
    inside, outside = CASES[name]
    is_in = np.r_[np.ones(inside.size), np.zeros(outside.size)]
    scores = np.r_[inside, outside]
    expected_id = average_precision_score(is_in, scores)
    expected_ood = average_precision_score(1 - is_in, -scores)
    assert aupr(inside, outside, positive="id") == pytest.approx(expected_id, abs=1e-12)
    assert aupr(inside, outside, positive="ood") == pytest.approx(expected_ood, abs=1e-12)


@EVERY_CASE
@pytest.mark.parametrize("level", [0.01, 0.29, 0.5, 0.9, 0.95, 1.0])
def test_both_rates_are_scikit_learns_first_threshold(name: str, level: float) -> None:
    inside, outside = CASES[name]
    caught = first_at_level(-outside, -inside, level)
    assert fpr_at_95_tpr_ood(inside, outside, level=level) == pytest.approx(caught, abs=1e-12)
    accepted = first_at_level(inside, outside, level)
    assert ood_miss_at_95_id(inside, outside, level=level) == pytest.approx(accepted, abs=1e-12)


def test_tied_diagonal() -> None:
    """20 levels, one of each kind at every level."""
    inside, outside = DIAGONAL, DIAGONAL
    assert auroc(inside, outside) == 0.5
    # 19 of 20 caught flags the lowest 19 levels; a curve without its collinear points says 1.
    assert fpr_at_95_tpr_ood(inside, outside) == 0.95
    assert ood_miss_at_95_id(inside, outside) == 0.95
    # Precision is 1/2 at every threshold.
    assert aupr(inside, outside, positive="ood") == pytest.approx(0.5, abs=1e-15)
    assert aupr(inside, outside, positive="id") == pytest.approx(0.5, abs=1e-15)


def test_the_two_rates_differ() -> None:
    # In 0 and 20 times 9; out 20 times 1. Accepting 95 % of in: t = 9, no outlier accepted.
    inside, outside = [0.0] + [9.0] * 20, [1.0] * 20
    assert ood_miss_at_95_id(inside, outside) == 0.0
    # Catching 95 % of out: t = 1, which flags the one at 0.
    assert fpr_at_95_tpr_ood(inside, outside) == 1 / 21


def test_distances_in_the_hundreds_do_not_saturate() -> None:
    # What squashes them through a sigmoid first reports 0.5.
    inside, outside = CASES["like distances"]
    assert auroc(inside, outside) == pytest.approx(0.9958, abs=2e-3)


def test_separated_inverted_and_all_tied() -> None:
    assert evaluate_ood(*CASES["separated"]) == OodMetrics(1.0, 1.0, 1.0, 0.0, 0.0)
    inverted = evaluate_ood(*CASES["inverted"])
    assert (inverted.auroc, inverted.fpr95_ood, inverted.miss95_id) == (0.0, 1.0, 1.0)
    tied = evaluate_ood(*CASES["all tied"])
    # One group of 9 in and 4 out.
    assert tied == OodMetrics(0.5, 4 / 13, 9 / 13, 1.0, 1.0)


def test_by_hand() -> None:
    inside, outside = [1, 2, 3], [0, 1, 2]
    # Pairs in > out: 1+2+3 = 6; tied: (1,1), (2,2).
    assert auroc(inside, outside) == 7 / 9
    # Outliers by rising score: 0 (P 1/1), 1 (2/3), 2 (3/5), each a third of the recall.
    expected = (1 + 2 / 3 + 3 / 5) / 3
    assert aupr(inside, outside, positive="ood") == pytest.approx(expected, abs=1e-15)


def test_the_report_has_the_names_with_the_direction() -> None:
    metrics = evaluate_ood(*CASES["small 30 v 30"])
    assert metrics.report() == {
        "auroc": metrics.auroc,
        "aupr_ood": metrics.aupr_ood,
        "aupr_id": metrics.aupr_id,
        "fpr@95tpr_ood": metrics.fpr95_ood,
        "ood_miss@95id": metrics.miss95_id,
    }
    assert len(set(metrics.report().values())) == 5


def test_a_million_scores_take_seconds_not_minutes() -> None:
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(1, 1, 1_000_000), rng.normal(0, 1, 1_000_000)
    started = time.process_time()
    metrics = evaluate_ood(inside, outside)
    assert time.process_time() - started < 10
    # Phi(1 / sqrt 2) = 0.76025.
    assert metrics.auroc == pytest.approx(0.76025, abs=2e-3)


def test_accuracy() -> None:
    assert accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75
    assert accuracy(np.zeros(3, np.int8), np.zeros(3, np.int64)) == 1.0


@pytest.mark.parametrize(
    ("predicted", "labels"), [([], []), ([1], [1, 2]), ([[1]], [[1]]), ([1, 2], [[1], [2]])]
)
def test_accuracy_needs_a_label_for_each(predicted: ArrayLike, labels: ArrayLike) -> None:
    with pytest.raises(
        ValueError, match=r"`predicted` has shape .*, `labels` .*; expected the sam"
    ):
        accuracy(predicted, labels)


def test_bootstrap_is_reproducible_and_holds_the_figure() -> None:
    inside, outside = CASES["gauss 5000 v 500"]
    first = bootstrap_interval(auroc, inside, outside, rng=np.random.default_rng(3))
    again = bootstrap_interval(auroc, inside, outside, rng=np.random.default_rng(3))
    other = bootstrap_interval(auroc, inside, outside, rng=np.random.default_rng(4))
    assert first == again
    assert first != other
    assert first[0] < auroc(inside, outside) < first[1]
    narrow = bootstrap_interval(
        auroc, inside, outside, confidence=0.5, rng=np.random.default_rng(3)
    )
    assert first[0] < narrow[0] < narrow[1] < first[1]


def test_bootstrap_width_is_that_of_the_binomial() -> None:
    # A share of 0.3 among 2000: standard error sqrt(0.21 / 2000) = 0.010247.
    inside = np.repeat([0.0, 1.0], [600, 1400])

    def share(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
        assert inside.size == 2000
        assert outside.size == 1
        return float(np.mean(inside == 0))

    low, high = bootstrap_interval(
        share, inside, [0.0], resamples=4000, rng=np.random.default_rng(0)
    )
    assert high - low == pytest.approx(2 * 1.96 * 0.010247, rel=0.05)
    assert (low + high) / 2 == pytest.approx(0.3, abs=0.002)


def test_bootstrap_covers_at_about_its_confidence() -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(100):
        inside, outside = rng.normal(1, 1, 100), rng.normal(0, 1, 100)
        low, high = bootstrap_interval(auroc, inside, outside, resamples=200, rng=rng)
        covered += low <= 0.76025 <= high
    assert 86 <= covered <= 100


@pytest.mark.parametrize(
    ("confidence", "resamples"), [(0.0, 10), (1.0, 10), (float("nan"), 10), (0.9, 0)]
)
def test_bootstrap_arguments(confidence: float, resamples: int) -> None:
    with pytest.raises(ValueError, match=r"`confidence` = .*, `resamples` = .*; expected 0 < conf"):
        bootstrap_interval(
            auroc,
            [1.0],
            [0.0],
            confidence=confidence,
            resamples=resamples,
            rng=np.random.default_rng(0),
        )


TAKES_SCORES: list[Callable[[ArrayLike, ArrayLike], object]] = [
    auroc,
    fpr_at_95_tpr_ood,
    ood_miss_at_95_id,
    evaluate_ood,
    lambda inside, outside: aupr(inside, outside, positive="ood"),
    lambda inside, outside: bootstrap_interval(
        auroc, inside, outside, rng=np.random.default_rng(0)
    ),
]


@pytest.mark.parametrize("metric", TAKES_SCORES)
def test_both_kinds_are_needed_in_one_dimension(
    metric: Callable[[ArrayLike, ArrayLike], object],
) -> None:
    with pytest.raises(
        ValueError, match=r"`in_scores` has shape \(0,\); expected \(N,\) with N >="
    ):
        metric([], [1.0])
    with pytest.raises(
        ValueError, match=r"`out_scores` has shape \(0,\); expected \(N,\) with N >"
    ):
        metric([1.0], [])
    with pytest.raises(ValueError, match=r"`out_scores` has shape \(1, 2\); expected \(N,\)"):
        metric([1.0], [[1.0, 2.0]])


@pytest.mark.parametrize("metric", TAKES_SCORES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_refused(
    metric: Callable[[ArrayLike, ArrayLike], object], value: float
) -> None:
    with pytest.raises(
        NonFiniteScore, match="1 of 2 numbers in `in_scores` are NaN or infinite; e"
    ):
        metric([1.0, value], [0.0])
    with pytest.raises(NonFiniteScore, match="1 of 3 numbers in `out_scores` are NaN or infinite"):
        metric([1.0], [0.0, value, 2.0])


@pytest.mark.parametrize("level", [0.0, -0.1, 1.01, 95, float("nan")])
def test_level_is_a_share(level: float) -> None:
    for metric in (fpr_at_95_tpr_ood, ood_miss_at_95_id):
        with pytest.raises(ValueError, match=r"`level` = .* is not above 0 and at most 1"):
            metric([1.0], [0.0], level=level)


def test_an_unknown_positive() -> None:
    with pytest.raises(ValueError, match="`positive` = 'out' is unknown; choose `ood` or `id`"):
        aupr([1.0], [0.0], positive="out")  # type: ignore[arg-type]
