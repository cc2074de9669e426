"""Means and spreads over seeds: statistics' and scipy's, and what is refused."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from oodserve.errors import DataError
from train.evaluation.document import Evaluation, RunFacts
from train.evaluation.measure import measure
from train.evaluation.scored import ScoredSets, ScoredSource
from train.evaluation.seeds import figures_of, over_seeds, summarise
from train.evaluation.settings import EvaluationSettings


def evaluation(seed: int, *, classes: tuple[str, ...] = ("a", "b"), images: int = 70) -> Evaluation:
    rng = np.random.default_rng(seed)

    def scored(count: int, shift: float) -> ScoredSource:
        logits = rng.normal(shift, 1, (count, 2)).astype(np.float32)
        return ScoredSource(logits, {"max_logit": logits.max(axis=1)})

    sets = ScoredSets(
        test=scored(60, 2), labels=rng.integers(2, size=60), calibration=scored(images, 2),
        ood={"near": scored(30, 1), "far": scored(20, 0)},
    )  # fmt: skip
    facts = RunFacts(
        name="x", method="oe", seed=seed, classes=classes, held_out=(), data_fingerprint="0" * 64
    )
    settings = EvaluationSettings(resamples=5)
    return measure(sets, scores=("max_logit",), settings=settings, run=facts)


@pytest.mark.parametrize("values", [[0.1, 0.4, 0.5], [0.9, 0.9], [1.0, 0.0, 0.3, 0.2, 0.8]])
def test_a_summary_is_that_of_other_libraries(values: list[float]) -> None:
    made = summarise(values)
    assert made.mean == pytest.approx(statistics.mean(values))
    assert made.sd == pytest.approx(statistics.stdev(values))
    assert summarise(values, ddof=0).sd == pytest.approx(statistics.pstdev(values))
    expected = ttest_1samp(values, 0).confidence_interval(0.95) if np.std(values) else values[:2]
    assert made.interval == pytest.approx(tuple(expected))
    assert summarise(values, ddof=0).interval == made.interval
    assert (made.n, made.ddof) == (len(values), 1)


def test_one_value_has_no_spread() -> None:
    made = summarise([0.7])
    assert (made.mean, made.sd, made.interval) == (0.7, None, None)
    assert summarise([0.7], ddof=0).sd == 0.0


def test_the_interval_of_three_seeds_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        interval = summarise(rng.normal(0.5, 0.1, 3).tolist()).interval
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert 930 <= covered <= 970
    assert student.ppf(0.975, 2) == pytest.approx(4.30, abs=0.01)  # what the docstring says


def test_what_has_no_summary() -> None:
    for values in ([], [np.nan], [0.1, np.inf]):
        with pytest.raises(ValueError, match=r"`values` = .*; expected one finite number or more"):
            summarise(values)
    with pytest.raises(ValueError, match=r"`ddof` = 2, `confidence` = 0.95; expected 0 or 1"):
        summarise([0.1], ddof=2)
    with pytest.raises(ValueError, match=r"`ddof` = 1, `confidence` = 1.0; expected 0 or 1"):
        summarise([0.1], confidence=1.0)


def test_sets_are_averaged_within_a_run_before_seeds() -> None:
    runs = [evaluation(seed) for seed in (0, 1, 2)]
    found = over_seeds(runs, score="max_logit", ood_sets=("near", "far"))
    each = [
        np.mean([run.detection(name, "max_logit").auroc for name in ("near", "far")])
        for run in runs
    ]
    assert found["auroc"].mean == pytest.approx(np.mean(each))
    assert found["auroc"].sd == pytest.approx(np.std(each, ddof=1))
    assert found["accuracy"].mean == pytest.approx(np.mean([run.accuracy for run in runs]))
    assert {"aurc", "false_alarms", "coverage", "ood_recall", "aupr_ood@5:1"} <= set(found)
    near = figures_of(runs[0], score="max_logit", ood_sets=("near",))
    assert near["auroc"] == runs[0].detection("near", "max_logit").auroc


def test_figures_that_one_run_lacks_are_left_out() -> None:
    found = over_seeds(
        [evaluation(0), evaluation(1, images=10)], score="max_logit", ood_sets=("near",)
    )
    assert "ood_recall" not in found
    assert "false_alarms" not in found
    assert found["auroc"].n == 2


def test_what_are_no_repetitions() -> None:
    one = evaluation(0)
    with pytest.raises(DataError, match=r"evaluations of the seeds \[0, 0\] are no repetitions"):
        over_seeds([one, one], score="max_logit", ood_sets=("near",))
    with pytest.raises(DataError, match=r"evaluations of the seeds \[\] are no repetitions"):
        over_seeds([], score="max_logit", ood_sets=("near",))
    with pytest.raises(DataError, match="of models with different classes; compare like with like"):
        over_seeds([one, evaluation(1, classes=("a", "c"))], score="max_logit", ood_sets=("near",))
    with pytest.raises(DataError, match="there is no set to take the mean over; name one or more"):
        figures_of(one, score="max_logit", ood_sets=())
