"""What holds for metrics on every pair of score lists, against loops over pairs and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from oodserve.metrics import (
    aupr,
    auroc,
    bootstrap_interval,
    evaluate_ood,
    fpr_at_95_tpr_ood,
    ood_miss_at_95_id,
)

SCORE = st.integers(-4, 4).map(float) | st.floats(-1e6, 1e6)
SCORES = st.lists(SCORE, min_size=1, max_size=30)
LEVEL = st.sampled_from([0.29, 0.5, 0.9, 0.95, 1.0]) | st.floats(0.001, 1.0)


@given(inside=SCORES, outside=SCORES)
@settings(deadline=None)
def test_auroc_counts_pairs(inside: list[float], outside: list[float]) -> None:
    won = sum((a > b) + (a == b) / 2 for a in inside for b in outside)
    assert auroc(inside, outside) == pytest.approx(won / (len(inside) * len(outside)))


@given(inside=SCORES, outside=SCORES)
@settings(deadline=None)
def test_average_precision_walks_the_thresholds(inside: list[float], outside: list[float]) -> None:
    expected, recalled = 0.0, 0.0
    for threshold in sorted(set(outside)):
        found = sum(b <= threshold for b in outside)
        false = sum(a <= threshold for a in inside)
        recall = found / len(outside)
        expected += (recall - recalled) * found / (found + false)
        recalled = recall
    assert aupr(inside, outside, positive="ood") == pytest.approx(expected)


@given(inside=SCORES, outside=SCORES, level=LEVEL)
@settings(deadline=None)
def test_rates_are_those_of_the_first_threshold_that_suffices(
    inside: list[float], outside: list[float], level: float
) -> None:
    flagged = next(
        sum(a <= t for a in inside) / len(inside)
        for t in sorted(outside)
        if sum(b <= t for b in outside) / len(outside) >= level
    )
    assert fpr_at_95_tpr_ood(inside, outside, level=level) == flagged
    missed = next(
        sum(b >= t for b in outside) / len(outside)
        for t in sorted(inside, reverse=True)
        if sum(a >= t for a in inside) / len(inside) >= level
    )
    assert ood_miss_at_95_id(inside, outside, level=level) == missed


@given(inside=SCORES, outside=SCORES)
@settings(deadline=None)
def test_exchanging_the_kinds_and_the_sign(inside: list[float], outside: list[float]) -> None:
    metrics = evaluate_ood(inside, outside)
    turned = evaluate_ood(-np.array(outside), -np.array(inside))
    assert turned.auroc == pytest.approx(metrics.auroc)
    assert (turned.aupr_id, turned.aupr_ood) == (metrics.aupr_ood, metrics.aupr_id)
    assert (turned.fpr95_ood, turned.miss95_id) == (metrics.miss95_id, metrics.fpr95_ood)
    assert auroc(outside, inside) == pytest.approx(1 - metrics.auroc)


@given(inside=SCORES, outside=SCORES, data=st.data())
@settings(deadline=None)
def test_only_the_order_of_scores_counts(
    inside: list[float], outside: list[float], data: st.DataObject
) -> None:
    metrics = evaluate_ood(inside, outside)
    assert all(0 <= value <= 1 for value in metrics.report().values())
    shuffled = data.draw(st.permutations(inside)), data.draw(st.permutations(outside))
    assert evaluate_ood(*shuffled) == metrics
    # Any increasing map: here to the ranks.
    ladder = np.unique(inside + outside)
    ranks: tuple[ArrayLike, ArrayLike] = (
        np.searchsorted(ladder, inside),
        np.searchsorted(ladder, outside),
    )
    assert evaluate_ood(*ranks) == metrics


@given(inside=SCORES, outside=SCORES, seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_bootstrap_stays_between_the_extremes(
    inside: list[float], outside: list[float], seed: int
) -> None:
    low, high = bootstrap_interval(
        auroc, inside, outside, resamples=20, rng=np.random.default_rng(seed)
    )
    assert 0 <= low <= high <= 1
    if min(inside) > max(outside):
        assert (low, high) == (1.0, 1.0)
