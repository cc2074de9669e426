"""Thresholds and p-values: worked examples, crepes, and the promise by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalClassifier
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from oodserve.calibration import (
    MAX_PAIRS,
    Rule,
    ScoreCalibration,
    calibrate_score,
    clopper_pearson_upper,
    marginal_rank,
    pac_rank,
    small_sample_warning,
)
from oodserve.errors import InvalidRequest, NonFiniteScore, TooFewSamples

TWENTY = [0.31, 0.42, 0.55, 0.58, 0.61, 0.66, 0.70, 0.72, 0.75, 0.78,
          0.80, 0.83, 0.85, 0.88, 0.90, 0.92, 0.94, 0.96, 0.97, 0.99]  # fmt: skip


def pac(scores: ArrayLike) -> ScoreCalibration:
    return calibrate_score(scores, rule="pac", target_tpr=0.95, confidence=0.95)


def test_the_worked_example_of_twenty() -> None:
    made = calibrate_score(TWENTY, rule="marginal", target_tpr=0.9, confidence=None)
    # floor(0.1 * 21) = 2; numpy's default quantile would say 0.537.
    assert (made.n, made.k, made.tau) == (20, 2, 0.42)
    assert made.p_value(0.31) == 2 / 21
    assert made.p_value(0.42) == 3 / 21
    assert made.p_value(0.30) == 1 / 21
    assert made.p_value(5.0) == 1.0
    assert (made.is_out(0.41), made.is_out(0.42), made.is_out(0.43)) == (True, False, False)
    assert made.confidence is None
    # The bound under the marginal rule is at 95 %.
    assert made.rejection_upper == clopper_pearson_upper(1, 20, 0.95)
    assert made.tpr_lower == 1 - made.rejection_upper


def test_rejecting_below_tau_is_rejecting_small_p_values() -> None:
    rng = np.random.default_rng(3)
    for n, alpha in ((99, 0.05), (999, 0.1), (250, 0.29)):
        made = calibrate_score(
            rng.normal(size=n), rule="marginal", target_tpr=1 - alpha, confidence=None
        )
        for score in rng.normal(-1, 1.5, 300):
            assert made.is_out(score) == (made.p_value(score) <= alpha + 1e-12)


def test_pac_of_1000() -> None:
    scores = np.random.default_rng(0).permutation(1000).astype(np.float32)
    made = pac(scores)
    assert (made.n, made.k, made.tau) == (1000, 39, 38.0)
    assert made.rejection_upper == pytest.approx(float(stats.beta.ppf(0.95, 39, 962)), rel=1e-10)
    assert 0.95 <= made.tpr_lower < 0.952
    assert made.values[0] == (0.0, 1)
    assert made.values[-1] == (999.0, 1000)


def test_tau_is_a_score_that_occurred_and_ties_are_accepted() -> None:
    scores = np.repeat([1.0, 2.0, 3.0], [30, 40, 130])
    made = pac(scores)
    assert (made.k, made.tau) == (5, 1.0)
    assert made.values == ((1.0, 30), (2.0, 70), (3.0, 200))
    assert not made.is_out(1.0)
    assert made.p_value(1.0) == 31 / 201
    assert made.p_value(2.5) == 71 / 201
    assert made.smoothed_p_value(2.0, 0.0) == 30 / 201
    assert made.smoothed_p_value(2.0, 1.0) == 71 / 201
    assert made.smoothed_p_value(2.5, 0.5) == 70.5 / 201
    assert made.smoothed_p_value(0.5, 0.5) == 0.5 / 201


def test_all_scores_equal() -> None:
    made = pac([7.0] * 100)
    assert made.values == ((7.0, 100),)
    assert (made.is_out(7.0), made.is_out(6.9)) == (False, True)
    assert made.smoothed_p_value(7.0, 0.25) == 0.25


def test_p_values_equal_those_of_crepes() -> None:
    rng = np.random.default_rng(5)
    # One decimal, so that ties abound.
    reference, probes = rng.normal(size=300).round(1), rng.normal(-0.5, 2, 400).round(1)
    made = pac(reference)
    # There a larger number is less conforming.
    oracle = ConformalClassifier().fit(-reference)
    expected = oracle.predict_p(-probes, smoothing=False)
    np.testing.assert_allclose(made.p_values(probes), expected, rtol=1e-14)
    # Drawn as crepes draws from that seed.
    smoothed = oracle.predict_p(-probes, seed=11)
    u = np.random.RandomState(11).rand(400)
    np.testing.assert_allclose(made.smoothed_p_values(probes, u), smoothed, rtol=1e-14)


@pytest.mark.parametrize("levels", [None, 40], ids=["continuous", "ties"])
@pytest.mark.parametrize(
    ("n", "alpha", "delta"),
    [(59, 0.05, 0.05), (200, 0.05, 0.1), (1000, 0.05, 0.05), (500, 0.2, 0.3)],
)
def test_pac_keeps_its_promise_over_calibration_sets(
    n: int, alpha: float, delta: float, levels: int | None
) -> None:
    draws = 3_000
    k = pac_rank(n, alpha, delta)
    scores = np.random.default_rng(n).random((draws, n))
    if levels is not None:
        scores = np.floor(scores * levels) / levels
    taus = np.partition(scores, k - 1, axis=1)[:, k - 1]
    for row in range(3):
        made = calibrate_score(scores[row], rule="pac", target_tpr=1 - alpha, confidence=1 - delta)
        assert (made.k, made.tau) == (k, taus[row])
    # For scores uniform on [0, 1), and for those rounded down to a grid, P(score < tau) = tau.
    missed = int((taus > alpha + 1e-12).sum())
    assert missed <= stats.binom.ppf(0.999, draws, delta)
    if levels is None:
        # Not trivially cautious either: the exact probability of a miss is that of the rule.
        exact = stats.binom.cdf(k - 1, n, alpha)
        assert missed >= stats.binom.ppf(0.001, draws, exact)
        assert stats.binom.cdf(k, n, alpha) > delta


@pytest.mark.parametrize("levels", [None, 40], ids=["continuous", "ties"])
@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (200, 0.05), (1000, 0.1)])
def test_marginal_keeps_its_promise_on_average(n: int, alpha: float, levels: int | None) -> None:
    draws = 3_000
    k = marginal_rank(n, alpha)
    scores = np.random.default_rng(n).random((draws, n))
    if levels is not None:
        scores = np.floor(scores * levels) / levels
    rejected = np.partition(scores, k - 1, axis=1)[:, k - 1]
    error = rejected.std() / np.sqrt(draws)
    assert rejected.mean() <= alpha + 3 * error
    if levels is None:
        assert rejected.mean() == pytest.approx(k / (n + 1), abs=3 * error)


def test_smoothed_p_values_are_uniform_where_scores_saturate() -> None:
    # Two thirds of the maximum softmax probabilities are exactly 1 in float32.
    rng = np.random.default_rng(2)

    def saturating(size: int) -> NDArray[np.float32]:
        margins = rng.normal(20, 8, size)
        return (1 / (1 + np.exp(-margins))).astype(np.float32)

    made, scores = pac(saturating(20_000)), saturating(4_000)
    assert np.mean(scores == 1.0) > 0.6
    smoothed = made.smoothed_p_values(scores, rng.random(scores.size))
    assert stats.kstest(smoothed, "uniform").pvalue > 0.05
    # The conservative p-value is not: it would look like drift.
    assert stats.kstest(made.p_values(scores), "uniform").pvalue < 1e-100


@pytest.mark.parametrize("scores", ["normal", "half tied", "few atoms"])
def test_thinning_is_exact_in_the_tail_and_rounds_up_elsewhere(scores: str) -> None:
    rng = np.random.default_rng(4)
    n = 60_000
    drawn = rng.normal(size=n)
    if scores == "half tied":
        drawn[: n // 2] = 0.25
    elif scores == "few atoms":
        drawn[: n // 2] = rng.choice([-1.0, 0.5, 3.0], n // 2)
    made = pac(drawn)
    assert made.k == pac_rank(n, 1 - 0.95, 1 - 0.95)
    assert made.tau == np.sort(drawn)[made.k - 1]
    assert len(made.values) <= MAX_PAIRS + made.k + 1
    assert len(made.values) < np.unique(drawn).size
    probes = np.concatenate([rng.normal(0, 2, 5_000), rng.choice(drawn, 5_000), [-9.0, 9.0]])
    exact = (1 + np.searchsorted(np.sort(drawn), probes, side="right")) / (n + 1)
    rounded = made.p_values(probes)
    assert (rounded >= exact).all()
    assert (rounded - exact).max() <= 1 / MAX_PAIRS
    tail = probes <= made.tau
    assert tail.sum() > 100
    np.testing.assert_array_equal(rounded[tail], exact[tail])
    u = rng.random(probes.size)
    below = np.searchsorted(np.sort(drawn), probes, side="left")
    smoothed = (below + u * ((n + 1) * exact - below)) / (n + 1)
    np.testing.assert_allclose(made.smoothed_p_values(probes, u), smoothed, atol=2 / MAX_PAIRS)


def test_thinning_keeps_the_lowest_1000_where_tau_is_lower() -> None:
    made = calibrate_score(np.arange(30_000), rule="pac", target_tpr=0.999, confidence=0.95)
    assert made.k < 100
    assert made.values[:1000] == tuple((float(i), i + 1) for i in range(1000))
    assert len(made.values) < 12_000


def test_nothing_is_thinned_up_to_10_000_distinct_scores() -> None:
    assert len(pac(np.arange(10_000)).values) == 10_000
    assert len(pac(np.arange(100_000) // 10).values) == 10_000
    assert len(pac(np.arange(10_000 * 5)).values) < 20_000


def test_small_sample_warning() -> None:
    assert small_sample_warning(1000) is None
    text = small_sample_warning(999)
    assert text is not None
    # 1.358 / sqrt(999) = 0.04297, 1 / 1000.
    assert text == (
        "only 999 calibration images: drift below a Kolmogorov-Smirnov distance of 0.043 cannot "
        "be told from the chance of having drawn these, and no p-value is below 0.001; use 1000 "
        "or more"
    )
    assert "0.068" in (small_sample_warning(400) or "")


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_target_and_confidence_are_fractions(value: float) -> None:
    scores = np.arange(1000.0)
    with pytest.raises(InvalidRequest, match=r"`target_tpr` = .* is not strictly between 0 and 1"):
        calibrate_score(scores, rule="pac", target_tpr=value, confidence=0.95)
    with pytest.raises(InvalidRequest, match=r"`confidence` = .* is not strictly between 0 and 1"):
        calibrate_score(scores, rule="pac", target_tpr=0.95, confidence=value)


def test_pac_needs_a_confidence_and_marginal_ignores_it() -> None:
    with pytest.raises(InvalidRequest, match="`confidence` = None is not strictly between 0 and 1"):
        calibrate_score(np.arange(1000.0), rule="pac", target_tpr=0.95, confidence=None)
    made = calibrate_score(np.arange(1000.0), rule="marginal", target_tpr=0.95, confidence=0.99)
    assert made.confidence is None


def test_an_unknown_rule() -> None:
    rule: Rule = "quantile"  # type: ignore[assignment]
    with pytest.raises(InvalidRequest, match="`rule` = 'quantile' is unknown; choose `pac` or `m"):
        calibrate_score(np.arange(1000.0), rule=rule, target_tpr=0.95, confidence=0.95)


def test_no_scores_at_all_are_too_few() -> None:
    with pytest.raises(TooFewSamples, match="0 calibration images are too few"):
        pac([])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_refused_everywhere(value: float) -> None:
    scores = np.arange(100.0)
    made = pac(scores)
    scores[7] = value
    with pytest.raises(
        NonFiniteScore, match="1 of 100 scores are NaN or infinite; expected finite"
    ):
        pac(scores)
    with pytest.raises(NonFiniteScore, match="1 of 1 scores are NaN or infinite"):
        made.p_value(value)
    with pytest.raises(NonFiniteScore, match="1 of 1 scores are NaN or infinite"):
        made.smoothed_p_value(value, 0.5)
    with pytest.raises(NonFiniteScore, match=r"the score is .*; expected a finite number"):
        made.is_out(value)


def test_scores_have_one_dimension() -> None:
    with pytest.raises(ValueError, match=r"scores have shape \(100, 1\); expected one dimension"):
        pac(np.zeros((100, 1)))


@pytest.mark.parametrize("u", [[0.5], [0.5, 1.1], [0.5, -0.1], [0.5, np.nan]])
def test_u_is_one_number_in_0_to_1_for_each_score(u: list[float]) -> None:
    with pytest.raises(ValueError, match=r"`u` of shape .* for scores of shape \(2,\): expected"):
        pac(np.arange(100.0)).smoothed_p_values([1.0, 2.0], u)
