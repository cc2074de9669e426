"""Risk, coverage and the point at tau, against loops; intervals against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from oodserve.errors import NonFiniteScore
from oodserve.metrics import (
    Rate,
    Samples,
    aurc,
    bootstrap_intervals,
    operating_point,
    risk_coverage,
)

RNG = np.random.default_rng(5)
Bools = NDArray[np.bool_]
CASES: dict[str, tuple[NDArray[np.float64], Bools]] = {
    "continuous": (RNG.normal(0, 1, 60), RNG.random(60) < 0.3),
    "ties": (RNG.integers(0, 5, 70).astype(float), RNG.random(70) < 0.4),
    "one right": (np.array([0.3]), np.array([False])),
    "one wrong": (np.array([0.3]), np.array([True])),
    "all equal": (np.zeros(9), np.arange(9) < 4),
    "none wrong": (np.arange(8.0), np.zeros(8, bool)),
    "all wrong": (np.arange(8.0), np.ones(8, bool)),
}
EVERY_CASE = pytest.mark.parametrize("name", CASES)


@EVERY_CASE
def test_the_curve_is_that_of_a_loop_over_thresholds(name: str) -> None:
    scores, wrong = CASES[name]
    curve = risk_coverage(scores, wrong)
    expected = []
    for threshold in sorted(set(scores.tolist()), reverse=True):
        answered = [bool(w) for s, w in zip(scores, wrong, strict=True) if s >= threshold]
        risk = sum(answered) / len(answered)
        expected.append((threshold, len(answered) / len(scores), risk))
    got = list(zip(curve.thresholds, curve.coverage, curve.risk, strict=True))
    assert got == expected
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == wrong.mean()


@EVERY_CASE
def test_aurc_is_the_mean_over_random_orders_of_ties(name: str) -> None:
    scores, wrong = CASES[name]
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(400):
        shuffled = rng.permutation(len(scores))
        order = shuffled[np.argsort(-scores[shuffled], kind="stable")]
        errors, risks = 0, []
        for k, index in enumerate(order, start=1):
            errors += int(wrong[index])
            risks.append(errors / k)
        areas.append(sum(risks) / len(risks))
    margin = 4 * np.std(areas) / np.sqrt(len(areas)) + 1e-12
    assert abs(aurc(scores, wrong) - np.mean(areas)) <= margin


def test_aurc_over_every_order_of_a_small_tie() -> None:
    scores, wrong = np.array([2.0, 1, 1, 1, 0]), np.array([False, True, False, False, True])
    areas = []
    for middle in itertools.permutations([1, 2, 3]):
        flags = wrong[[0, *middle, 4]]
        areas.append(np.mean(np.cumsum(flags) / np.arange(1, 6)))
    assert aurc(scores, wrong) == pytest.approx(np.mean(areas), abs=1e-14)


def test_aurc_by_hand() -> None:
    # Risks at 1/3, 2/3, 3/3: 0, 1/2, 1/3.
    assert aurc([3, 2, 1], [False, True, False]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert aurc(np.zeros(9), np.arange(9) < 4) == pytest.approx(4 / 9)


def test_a_better_order_has_less_area() -> None:
    wrong = np.arange(100) < 20
    assert aurc(np.arange(100), wrong) < 0.05
    assert aurc(-np.arange(100), wrong) > 0.4


def test_the_point_at_tau_is_counted() -> None:
    rng = np.random.default_rng(2)
    inside, outside = rng.integers(0, 9, 80).astype(float), rng.integers(-3, 5, 50).astype(float)
    wrong = rng.random(80) < 0.25
    for tau in (-10.0, 0.0, 3.0, 3.5, 100.0):
        point = operating_point(inside, wrong, outside, tau=tau)
        flagged = sum(s < tau for s in inside)
        errors = sum(bool(w) for s, w in zip(inside, wrong, strict=True) if s >= tau)
        missed = sum(s >= tau for s in outside)
        assert point.false_alarms == Rate(flagged, 80)
        assert point.coverage == Rate(80 - flagged, 80)
        assert point.selective_risk == Rate(errors, 80 - flagged)
        assert point.ood_recall == Rate(50 - missed, 50)
        assert point.risk_with_ood == Rate(errors + missed, 80 - flagged + missed)
    assert point.selective_risk.value is None
    assert point.selective_risk.interval() is None


def test_a_score_equal_to_tau_is_answered() -> None:
    point = operating_point([2.0], [False], [2.0], tau=2.0)
    assert (point.false_alarms.value, point.coverage.value) == (0.0, 1.0)
    assert point.ood_recall is not None
    assert point.ood_recall.value == 0.0


def test_without_outliers_there_is_no_recall() -> None:
    point = operating_point([1.0, 2.0], [False, True], tau=1.5)
    assert (point.ood_recall, point.risk_with_ood) == (None, None)
    assert point.selective_risk == Rate(1, 1)


@pytest.mark.parametrize(("count", "total"), [(0, 7), (7, 7), (3, 50), (1, 1), (463, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_intervals_of_rates_are_scipys(count: int, total: int, confidence: float) -> None:
    expected = binomtest(count, total).proportion_ci(confidence, method="exact")
    got = Rate(count, total).interval(confidence)
    assert got == pytest.approx((expected.low, expected.high), abs=1e-9)


REFUSED: list[tuple[ArrayLike, ArrayLike, str]] = [
    ([], [], r"`scores` has shape \(0,\); expected \(N,\) with N >= 1"),
    ([[1.0]], [[True]], r"`scores` has shape \(1, 1\)"),
    ([1.0, 2.0], [True], r"`wrong` is bool of shape \(1,\); expected bool of shape \(2,\)"),
    ([1.0], [1], r"`wrong` is int64 of shape \(1,\); expected bool"),
]


@pytest.mark.parametrize(("scores", "wrong", "text"), REFUSED)
def test_what_is_no_pair_of_lists_is_refused(
    scores: ArrayLike, wrong: ArrayLike, text: str
) -> None:
    for metric in (risk_coverage, aurc, lambda s, w: operating_point(s, w, tau=0.0)):
        with pytest.raises(ValueError, match=text):
            metric(scores, wrong)


def test_non_finite_numbers_are_refused() -> None:
    with pytest.raises(NonFiniteScore, match="1 of 2 numbers in `scores` are NaN or infinite"):
        aurc([1.0, np.nan], [True, False])
    with pytest.raises(NonFiniteScore, match="1 of 1 numbers in `out_scores` are NaN"):
        operating_point([1.0], [True], [np.inf], tau=0.0)
    with pytest.raises(ValueError, match="`tau` is NaN; expected a threshold"):
        operating_point([1.0], [True], tau=float("nan"))


def test_rows_are_resampled_whole_and_names_share_resamples() -> None:
    rows = np.column_stack([np.arange(50.0), 2 * np.arange(50.0)])

    def statistics(samples: Samples) -> dict[str, float]:
        (sample,) = samples
        assert (sample[:, 1] == 2 * sample[:, 0]).all()
        assert len(sample) == 50
        return {"first": sample[:, 0].mean(), "second": sample[:, 1].mean()}

    found = bootstrap_intervals(statistics, [rows], resamples=200, rng=np.random.default_rng(0))
    assert found["second"] == pytest.approx(tuple(2 * end for end in found["first"]))
    # Standard error of a mean of 0..49: 14.43 / sqrt(50) = 2.04.
    low, high = found["first"]
    assert high - low == pytest.approx(2 * 1.96 * 2.04, rel=0.15)


def test_figures_that_are_not_defined_have_no_interval() -> None:
    calls = iter(range(10**6))

    def statistics(samples: Samples) -> dict[str, float]:
        odd = next(calls) % 2
        return {"never": np.nan, "at times": 1.0 if odd else np.nan}

    found = bootstrap_intervals(
        statistics, [np.zeros(3)], resamples=20, rng=np.random.default_rng(0)
    )
    assert found == {"at times": (1.0, 1.0)}


def test_samples_to_resample_have_rows() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"samples of \[3, 0\] rows cannot be resampled"):
        bootstrap_intervals(lambda _: {}, [np.zeros(3), np.zeros(0)], rng=rng)
    with pytest.raises(ValueError, match=r"samples of \[\] rows cannot be resampled; expected 1"):
        bootstrap_intervals(lambda _: {}, [], rng=rng)
    with pytest.raises(ValueError, match=r"`confidence` = 1\.0, `resamples` = 1000; expected 0 <"):
        bootstrap_intervals(lambda _: {}, [np.zeros(3)], confidence=1.0, rng=rng)
