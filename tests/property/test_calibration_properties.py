"""What holds for every calibration, against counting by brute force."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oodserve.calibration import (
    Calibration,
    Runtime,
    ScoreCalibration,
    calibrate,
    calibrate_score,
    pac_rank,
    pac_samples_needed,
)

FEW_VALUES = st.integers(0, 6).map(lambda level: level / 4)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCORES = st.lists(FEW_VALUES | FINITE, min_size=1, max_size=40)


def half(scores: list[float]) -> ScoreCalibration:
    """Calibrate at a target that any number of scores suffices for."""
    return calibrate_score(scores, rule="marginal", target_tpr=0.5, confidence=None)


@given(scores=SCORES, probe=FEW_VALUES | FINITE, u=st.floats(0, 1))
@settings(deadline=None)
def test_p_values_count(scores: list[float], probe: float, u: float) -> None:
    made, n = half(scores), len(scores)
    below = sum(score < probe for score in scores)
    tied = sum(score == probe for score in scores)
    assert made.p_value(probe) == (1 + below + tied) / (n + 1)
    assert made.smoothed_p_value(probe, u) == pytest.approx((below + u * (1 + tied)) / (n + 1))
    assert made.smoothed_p_value(probe, 1.0) == made.p_value(probe)
    assert 0 <= made.smoothed_p_value(probe, u) <= made.p_value(probe) <= 1


@given(scores=SCORES, probes=st.lists(FEW_VALUES | FINITE, max_size=20))
@settings(deadline=None)
def test_p_values_are_monotone_and_one_by_one_the_same(
    scores: list[float], probes: list[float]
) -> None:
    made = half(scores)
    ascending = made.p_values(sorted(probes))
    assert (np.diff(ascending) >= 0).all()
    np.testing.assert_array_equal(made.p_values(probes), [made.p_value(p) for p in probes])


@given(scores=SCORES.filter(lambda scores: len(scores) > 1))
@settings(deadline=None)
def test_the_p_value_is_conservative_and_the_smoothed_one_exactly_uniform(
    scores: list[float],
) -> None:
    """Over which of the exchangeable scores is the new one, as the proof has it."""
    total = len(scores)
    levels = [Fraction(0)] * total
    p_values = []
    for new in range(total):
        made, probe = half(scores[:new] + scores[new + 1 :]), scores[new]
        p_values.append(made.p_value(probe))
        # Given the scores, the smoothed p-value is uniform between two multiples of 1/total.
        first = round(made.smoothed_p_value(probe, 0.0) * total)
        last = round(made.smoothed_p_value(probe, 1.0) * total)
        for cell in range(first, last):
            levels[cell] += Fraction(1, (last - first) * total)
    assert levels == [Fraction(1, total)] * total
    for level in range(1, total + 1):
        assert sum(p <= level / total + 1e-12 for p in p_values) <= level


@given(scores=st.lists(FEW_VALUES | FINITE, min_size=59, max_size=120), data=st.data())
@settings(deadline=None, max_examples=50)
def test_tau_is_the_kth_smallest_score_and_rejects_fewer_than_k(
    scores: list[float], data: st.DataObject
) -> None:
    alpha = data.draw(st.floats(0.05, 0.6))
    delta = data.draw(st.floats(0.05, 0.6))
    if pac_samples_needed(alpha, delta) > len(scores):
        return
    made = calibrate_score(scores, rule="pac", target_tpr=1 - alpha, confidence=1 - delta)
    assert made.tau == sorted(scores)[made.k - 1]
    assert sum(made.is_out(score) for score in scores) < made.k
    assert made.rejection_upper <= alpha + 1e-9
    assert made.tpr_lower >= made.target_tpr - 1e-9


@given(n=st.integers(1, 5_000), alpha=st.floats(0.01, 0.9), delta=st.floats(0.01, 0.9))
@settings(deadline=None)
def test_pac_rank_grows_with_n_alpha_and_delta(n: int, alpha: float, delta: float) -> None:
    if pac_samples_needed(alpha, delta) > n:
        return
    rank = pac_rank(n, alpha, delta)
    assert 1 <= rank <= n
    assert pac_rank(n + 1, alpha, delta) in (rank, rank + 1)
    assert pac_rank(n, min(0.95, alpha * 1.1), delta) >= rank
    assert pac_rank(n, alpha, min(0.95, delta * 1.1)) >= rank


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(10_001, 25_000),
    atoms=st.lists(st.tuples(st.floats(-3, 3), st.integers(1, 3_000)), max_size=3),
)
@settings(deadline=None, max_examples=12)
def test_thinning_rounds_p_values_up_and_only_above_tau(
    seed: int, n: int, atoms: list[tuple[float, int]]
) -> None:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(size=n), *(np.full(count, at) for at, count in atoms)])
    made = calibrate_score(scores, rule="pac", target_tpr=0.95, confidence=0.95)
    probes = np.concatenate([rng.normal(0, 2, 2_000), rng.choice(scores, 2_000)])
    ascending = np.sort(scores)
    exact = (1 + np.searchsorted(ascending, probes, side="right")) / (scores.size + 1)
    rounded = made.p_values(probes)
    assert (rounded >= exact).all()
    assert (rounded - exact).max() <= 1e-4
    low = probes <= max(made.tau, ascending[999])
    np.testing.assert_array_equal(rounded[low], exact[low])


@given(scores=SCORES, others=SCORES, classes=st.integers(1, 5))
@settings(deadline=None)
def test_documents_read_back_equal(scores: list[float], others: list[float], classes: int) -> None:
    n = min(len(scores), len(others))
    made = calibrate(
        {"msp": scores[:n], "energy": others[:n]},
        np.arange(n) % classes,
        n_classes=classes,
        rule="marginal",
        target_tpr=0.5,
        confidence=None,
        model_sha256="0" * 64,
        input_sha256="f" * 64,
        runtime=Runtime(library="onnxruntime", provider="cuda", precision="fp16"),
        data_fingerprint="fingerprint",
        default_score="energy",
        created="2026-01-31T12:00:00Z",
    )
    assert Calibration.model_validate_json(made.to_json()) == made
