"""From scored images to the figures of an evaluation; nothing here knows a model or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodserve.calibration import ScoreCalibration, calibrate_score
from oodserve.errors import ConfigurationError, TooFewSamples
from oodserve.metrics import (
    OperatingPoint,
    Rate,
    Samples,
    aupr,
    aurc,
    bootstrap_intervals,
    evaluate_ood,
    operating_point,
    risk_coverage,
)
from train.evaluation.document import (
    AtTau,
    AveragePrecisions,
    CountedRate,
    Detection,
    Evaluation,
    GroupDetection,
    Interval,
    OodAtTau,
    RunFacts,
    ScoreFigures,
)
from train.evaluation.scored import ScoredSets
from train.evaluation.settings import CONFIDENCE, EvaluationSettings, parse_base_rate

CURVE_POINTS = 201
"""Points of a risk-coverage curve that a document keeps."""

_RATES_AT_TAU = ("false_alarms", "coverage", "selective_risk")


def measure(
    sets: ScoredSets, *, scores: tuple[str, ...], settings: EvaluationSettings, run: RunFacts
) -> Evaluation:
    """Return every figure of the sets.

    Parameters
    ----------
    sets : ScoredSets
    scores : tuple of str
        Which scores, the default one first.
    settings : EvaluationSettings
    run : RunFacts
        Its seed seeds the bootstrap too.

    Raises
    ------
    ConfigurationError
        A group names a set that is not there.
    DataError, NonFiniteScore
        See `ScoredSets.check`.

    Notes
    -----
    For each score the test images and every set are resampled once for all figures. Tau is not
    drawn anew: the intervals at tau are those of this threshold on other test images.
    """
    sets.check(scores)
    refuse_unknown_members(settings.groups, known=tuple(sets.ood))
    rng = np.random.default_rng(run.seed)
    notes: list[str] = []
    works = [
        _Work(score, _threshold(sets, score, settings, notes), sets, settings) for score in scores
    ]
    intervals = {work.score: work.intervals(rng) for work in works}
    right = Rate(int((~sets.wrong).sum()), len(sets.labels))
    accuracy, accuracy_interval = right.value, right.interval(CONFIDENCE)
    assert accuracy is not None
    assert accuracy_interval is not None
    return Evaluation(
        run=run,
        confidence=CONFIDENCE,
        resamples=settings.resamples,
        accuracy=accuracy,
        accuracy_interval=accuracy_interval,
        test_images=len(sets.labels),
        scores=scores,
        selective=tuple(work.score_figures(intervals[work.score]) for work in works),
        detections=tuple(
            work.detection(name, intervals[work.score]) for name in sets.ood for work in works
        ),
        groups=tuple(
            work.group(name, intervals[work.score]) for name in settings.groups for work in works
        ),
        notes=tuple(dict.fromkeys(notes)),
    )


def refuse_unknown_members(groups: Mapping[str, tuple[str, ...]], known: tuple[str, ...]) -> None:
    """Refuse groups of sets that are not evaluated.

    Raises
    ------
    ConfigurationError
        A group names a set that is not `known`.
    """
    for group, members in groups.items():
        for member in members:
            if member not in known:
                raise ConfigurationError(
                    f"the group `{group}` names the set `{member}`, which is not evaluated; the "
                    f"sets are {', '.join(f'`{name}`' for name in known)}"
                )


def _threshold(
    sets: ScoredSets, score: str, settings: EvaluationSettings, notes: list[str]
) -> ScoreCalibration | None:
    """Return the calibration of a score, or None and a note that says why there is none."""
    if sets.calibration is None:
        notes.append("no figures at tau: the data keep no calibration split")
        return None
    try:
        return calibrate_score(
            sets.calibration.scores[score],
            rule=settings.rule,
            target_tpr=settings.target_tpr,
            confidence=settings.rule_confidence if settings.rule == "pac" else None,
        )
    except TooFewSamples as error:
        notes.append(f"no figures at tau: {error}")
        return None


@dataclass(frozen=True, eq=False)
class _Work:
    """The figures of one score; names of figures carry the set, ``SET/FIGURE``."""

    score: str
    made: ScoreCalibration | None
    sets: ScoredSets
    settings: EvaluationSettings

    def intervals(self, rng: np.random.Generator) -> dict[str, Interval]:
        """Return the bootstrap interval of every figure."""
        inside = np.column_stack([self._inside(), self.sets.wrong])
        # Sorted once, since resampling keeps the order and every figure sorts.
        inside = inside[np.argsort(inside[:, 0], kind="stable")]
        samples = [inside, *(np.sort(self._outside(name)) for name in self.sets.ood)]
        return bootstrap_intervals(
            self._figures,
            samples,
            confidence=CONFIDENCE,
            resamples=self.settings.resamples,
            rng=rng,
        )

    def _figures(self, samples: Samples) -> dict[str, float]:
        inside, wrong = samples[0][:, 0], samples[0][:, 1] == 1.0
        found = {"/aurc": aurc(inside, wrong)}
        point = self._point(inside, wrong, None)
        if point is not None:
            found |= {f"/{name}": _number(getattr(point, name)) for name in _RATES_AT_TAU}
        for name, outside in zip(self.sets.ood, samples[1:], strict=True):
            figures = self._set_figures(inside, wrong, outside)
            found |= {f"{name}/{figure}": value for figure, value in figures.items()}
        for group, members in self.settings.groups.items():
            means = _means([_of(member, found) for member in members])
            found |= {f"/{group}/{figure}": value for figure, value in means.items()}
        return found

    def _set_figures(
        self, inside: NDArray[np.float64], wrong: NDArray[np.bool_], outside: NDArray[np.float64]
    ) -> dict[str, float]:
        found = evaluate_ood(inside, outside).report()
        for text in self.settings.base_rates:
            rate = parse_base_rate(text)
            for positive in ("ood", "id"):
                found[f"aupr_{positive}@{text}"] = aupr(
                    inside, outside, positive=positive, base_rate=rate
                )
        point = self._point(inside, wrong, outside)
        if point is not None:
            found["ood_recall"] = _number(point.ood_recall)
            found["risk_with_ood"] = _number(point.risk_with_ood)
        return found

    def score_figures(self, intervals: Mapping[str, Interval]) -> ScoreFigures:
        """Return the figures on the test images alone."""
        inside, wrong = self._inside(), self.sets.wrong
        curve = risk_coverage(inside, wrong)
        kept = _spread(curve.coverage.size)
        return ScoreFigures(
            score=self.score,
            aurc=aurc(inside, wrong),
            aurc_interval=intervals["/aurc"],
            curve=tuple(zip(curve.coverage[kept].tolist(), curve.risk[kept].tolist(), strict=True)),
            at_tau=self._at_tau(intervals),
        )

    def _at_tau(self, intervals: Mapping[str, Interval]) -> AtTau | None:
        point = self._point(self._inside(), self.sets.wrong, None)
        if self.made is None or point is None:
            return None
        rates = {
            name: _counted(getattr(point, name), intervals.get(f"/{name}"))
            for name in _RATES_AT_TAU
        }
        return AtTau(
            tau=self.made.tau,
            rule=self.made.rule,
            target_tpr=self.made.target_tpr,
            confidence=self.made.confidence,
            n=self.made.n,
            k=self.made.k,
            tpr_lower=self.made.tpr_lower,
            **rates,
        )

    def detection(self, name: str, intervals: Mapping[str, Interval]) -> Detection:
        """Return the figures on one out-of-distribution set."""
        inside, outside = self._inside(), self._outside(name)
        figures = self._set_figures(inside, self.sets.wrong, outside)
        point = self._point(inside, self.sets.wrong, outside)
        at_tau = None
        if point is not None:
            assert point.ood_recall is not None
            assert point.risk_with_ood is not None
            at_tau = OodAtTau(
                ood_recall=_counted(point.ood_recall, intervals.get(f"{name}/ood_recall")),
                risk_with_ood=_counted(point.risk_with_ood, intervals.get(f"{name}/risk_with_ood")),
            )
        own = {key: intervals[f"{name}/{key}"] for key in figures if f"{name}/{key}" in intervals}
        return Detection.of(
            evaluate_ood(inside, outside),
            ood_set=name,
            score=self.score,
            images=outside.size,
            base_rates={
                text: AveragePrecisions(
                    aupr_ood=figures[f"aupr_ood@{text}"], aupr_id=figures[f"aupr_id@{text}"]
                )
                for text in self.settings.base_rates
            },
            at_tau=at_tau,
            intervals=own,
        )

    def group(self, group: str, intervals: Mapping[str, Interval]) -> GroupDetection:
        """Return the mean over the sets of a group."""
        members = self.settings.groups[group]
        each = [
            self._set_figures(self._inside(), self.sets.wrong, self._outside(name))
            for name in members
        ]
        defined = {key: value for key, value in _means(each).items() if not np.isnan(value)}
        return GroupDetection(
            group=group,
            score=self.score,
            ood_sets=members,
            figures=defined,
            intervals={
                key: intervals[f"/{group}/{key}"]
                for key in defined
                if f"/{group}/{key}" in intervals
            },
        )

    def _inside(self) -> NDArray[np.float64]:
        return self.sets.test.scores[self.score].astype(np.float64)

    def _outside(self, name: str) -> NDArray[np.float64]:
        return self.sets.ood[name].scores[self.score].astype(np.float64)

    def _point(
        self,
        inside: NDArray[np.float64],
        wrong: NDArray[np.bool_],
        outside: NDArray[np.float64] | None,
    ) -> OperatingPoint | None:
        if self.made is None:
            return None
        return operating_point(inside, wrong, outside, tau=self.made.tau)


def _counted(rate: Rate, bootstrap: Interval | None) -> CountedRate:
    return CountedRate.of(rate, bootstrap, confidence=CONFIDENCE)


def _of(name: str, found: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of one set, without its name."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): found[key] for key in found if key.startswith(prefix)}


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([figures[key] for figures in each])) for key in each[0]}


def _number(rate: Rate | None) -> float:
    return np.nan if rate is None or rate.value is None else rate.value


def _spread(points: int) -> NDArray[np.int64]:
    """Return up to `CURVE_POINTS` indices of a curve, both ends among them."""
    spread = np.linspace(0, points - 1, min(points, CURVE_POINTS))
    return np.unique(np.rint(spread).astype(np.int64))
