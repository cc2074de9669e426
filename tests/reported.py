"""A small evaluation made of drawn logits, for tests of what is written about one."""

from __future__ import annotations

import numpy as np

from train.evaluation.document import Evaluation, RunFacts
from train.evaluation.measure import measure
from train.evaluation.scored import ScoredSets, ScoredSource
from train.evaluation.settings import EvaluationSettings

SCORES = ("energy", "msp")


def make_evaluation(
    *, name: str = "tiny", sets: tuple[str, ...] = ("near", "far"), calibration: int = 80
) -> Evaluation:
    """Return an evaluation whose sets lie farther off from one to the next."""
    rng = np.random.default_rng(5)

    def scored(count: int, margin: float) -> ScoredSource:
        logits = rng.normal(0, 1, (count, 3))
        logits[np.arange(count), rng.integers(3, size=count)] += margin
        energy = np.log(np.exp(logits).sum(axis=1))
        top = np.exp(logits.max(axis=1) - energy)
        scores = {"energy": energy.astype(np.float32), "msp": top.astype(np.float32)}
        return ScoredSource(logits.astype(np.float32), scores)

    made = ScoredSets(
        test=scored(60, 3),
        labels=rng.integers(3, size=60),
        ood={set_name: scored(30, 1.5 - number) for number, set_name in enumerate(sets)},
        calibration=scored(calibration, 3),
    )
    facts = RunFacts(
        name=name, method="mixoe", seed=0, classes=("a", "b", "c"), held_out=(),
        data_fingerprint="0" * 64,
    )  # fmt: skip
    settings = EvaluationSettings(resamples=20, groups={"all": sets})
    return measure(made, scores=SCORES, settings=settings, run=facts)
