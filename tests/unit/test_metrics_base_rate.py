"""Average precision at a chosen base rate: scikit-learn's weights, subsets, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from oodserve.metrics import aupr

RNG = np.random.default_rng(7)
CASES: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
    "gauss": (RNG.normal(1, 1, 300), RNG.normal(0, 1, 120)),
    "ties": (RNG.integers(0, 6, 200).astype(float), RNG.integers(-2, 4, 90).astype(float)),
    "one each": (np.array([1.0]), np.array([0.0])),
    "all equal": (np.ones(12), np.ones(5)),
    "inverted": (np.arange(10.0), np.arange(10.0, 30.0)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rate", [5.0, 1.0, 0.1, 100.0])
def test_it_is_scikit_learns_with_sample_weights(name: str, rate: float) -> None:
    inside, outside = CASES[name]
    scores = np.r_[inside, outside]
    is_in = np.r_[np.ones(inside.size), np.zeros(outside.size)]
    # All in-distribution images together weigh `rate` for each outlier.
    weights = np.where(is_in == 1, rate * outside.size / inside.size, 1.0)
    expected_in = average_precision_score(is_in, scores, sample_weight=weights)
    expected_out = average_precision_score(1 - is_in, -scores, sample_weight=weights)
    got_in = aupr(inside, outside, positive="id", base_rate=rate)
    got_out = aupr(inside, outside, positive="ood", base_rate=rate)
    assert got_in == pytest.approx(expected_in, abs=1e-12)
    assert got_out == pytest.approx(expected_out, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_arrays_own_rate_changes_nothing(name: str) -> None:
    inside, outside = CASES[name]
    for positive in ("ood", "id"):
        plain = aupr(inside, outside, positive=positive)
        rated = aupr(
            inside,
            outside,
            positive=positive,
            base_rate=inside.size / outside.size,
        )
        assert rated == pytest.approx(plain, abs=1e-14)


def test_repeating_images_is_the_same_as_weighing_them() -> None:
    inside, outside = CASES["ties"]
    # 200 x 9 in-distribution images to 90 x 4 outliers are 5 : 1.
    repeated = aupr(np.repeat(inside, 9), np.repeat(outside, 4), positive="ood")
    assert aupr(inside, outside, positive="ood", base_rate=5.0) == pytest.approx(repeated)


def test_subsets_of_that_rate_tend_to_it() -> None:
    rng = np.random.default_rng(3)
    inside, outside = rng.normal(1, 1, 20_000), rng.normal(0, 1, 20_000)
    drawn = [aupr(inside, rng.choice(outside, 4000, replace=False), positive="ood")
             for _ in range(40)]  # fmt: skip
    error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
    weighed = aupr(inside, outside, positive="ood", base_rate=5.0)
    assert abs(np.mean(drawn) - weighed) < 4 * error + 1e-3
    assert abs(aupr(inside, outside, positive="ood") - weighed) > 0.1  # the rate does matter


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_base_rate_is_positive_and_finite(rate: float) -> None:
    with pytest.raises(ValueError, match=r"`base_rate` = .* is not above 0 and finite"):
        aupr([1.0], [0.0], positive="ood", base_rate=rate)
