"""Which tables an evaluation is told in."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from train.evaluation.document import (
    DETECTION_FIGURES,
    CountedRate,
    Evaluation,
    Interval,
)
from train.report.tables import Cell, Column, Estimate, Table

RATES_AT_TAU = ("ood_recall", "risk_with_ood")


def tables(evaluation: Evaluation) -> list[Table]:
    """Return every table that has something to tell, in the order of the report."""
    found = [detection_table(evaluation, intervals=DETECTION_FIGURES)]
    if evaluation.groups:
        found.append(group_table(evaluation))
    if evaluation.detections[0].base_rates:
        found.append(base_rate_table(evaluation))
    if any(item.at_tau is not None for item in evaluation.selective):
        found += [tau_table(evaluation), ood_at_tau_table(evaluation)]
    found.append(selective_table(evaluation))
    return found


def detection_table(evaluation: Evaluation, *, intervals: Collection[str] = ("auroc",)) -> Table:
    """Return the figures that need no threshold: a row for each set and score.

    Parameters
    ----------
    evaluation : Evaluation
    intervals : collection of str
        Figures that are printed with theirs.
    """
    rows: list[tuple[Cell, ...]] = [
        (
            item.ood_set,
            item.score,
            item.images,
            *(
                _estimate(item.figures()[name], name, item.intervals if name in intervals else {})
                for name in DETECTION_FIGURES
            ),
        )
        for item in evaluation.detections
    ]
    return Table(
        columns=(
            Column("OOD set"),
            Column("score"),
            Column("images"),
            *(Column.of(name) for name in DETECTION_FIGURES),
        ),
        rows=tuple(rows),
        caption="Detection of each out-of-distribution set, in percent",
        within=0,
    )


def group_table(evaluation: Evaluation) -> Table:
    """Return the means over groups of sets."""
    rows: list[tuple[Cell, ...]] = [
        (
            item.group,
            item.score,
            ", ".join(item.ood_sets),
            *(_estimate(item.figures[name], name, item.intervals) for name in DETECTION_FIGURES),
        )
        for item in evaluation.groups
    ]
    return Table(
        columns=(
            Column("group"),
            Column("score"),
            Column("sets"),
            *(Column.of(name) for name in DETECTION_FIGURES),
        ),
        rows=tuple(rows),
        caption="Groups: the plain mean over their sets, in percent",
        within=0,
    )


def base_rate_table(evaluation: Evaluation) -> Table:
    """Return average precision at each base rate."""
    names = [
        f"{figure}@{rate}"
        for rate in evaluation.detections[0].base_rates
        for figure in ("aupr_ood", "aupr_id")
    ]
    rows: list[tuple[Cell, ...]] = [
        (
            item.ood_set,
            item.score,
            *(_estimate(item.figures()[name], name, item.intervals) for name in names),
        )
        for item in evaluation.detections
    ]
    return Table(
        columns=(Column("OOD set"), Column("score"), *(Column.of(name) for name in names)),
        rows=tuple(rows),
        caption="Average precision at chosen proportions of ID to OOD images, in percent",
        within=0,
    )


def tau_table(evaluation: Evaluation) -> Table:
    """Return what the threshold of each score does with the test images."""
    rows: list[tuple[Cell, ...]] = []
    for item in evaluation.selective:
        made = item.at_tau
        if made is not None:
            cells = (made.false_alarms, made.coverage, made.selective_risk)
            rows.append((item.score, made.tau, made.n, made.k, *map(_rate, cells)))
    return Table(
        columns=(
            Column("score"),
            Column("tau", scale=1.0, digits=4),
            Column("calibration images"),
            Column("rank k"),
            Column.of("false_alarms"),
            # More coverage is fewer false alarms, which are marked already.
            Column("coverage"),
            Column.of("selective_risk"),
        ),
        rows=tuple(rows),
        caption="Known images at tau, in percent, with exact intervals",
    )


def ood_at_tau_table(evaluation: Evaluation) -> Table:
    """Return what the threshold of each score does with each out-of-distribution set."""
    rows: list[tuple[Cell, ...]] = []
    for item in evaluation.detections:
        if item.at_tau is not None:
            recall, risk = item.at_tau.ood_recall, item.at_tau.risk_with_ood
            caught = f"{recall.count} of {recall.total}"
            rows.append((item.ood_set, item.score, caught, _rate(recall), _rate(risk)))
    return Table(
        columns=(
            Column("OOD set"),
            Column("score"),
            Column("flagged"),
            *(Column.of(name) for name in RATES_AT_TAU),
        ),
        rows=tuple(rows),
        caption="Out-of-distribution images at tau, in percent, with exact intervals",
        within=0,
    )


def selective_table(evaluation: Evaluation) -> Table:
    """Return the area under the risk-coverage curve of each score."""
    rows = [(item.score, Estimate(item.aurc, item.aurc_interval)) for item in evaluation.selective]
    return Table(
        columns=(Column("score"), Column.of("aurc")),
        rows=tuple(rows),
        caption="Selective classification of the known images, in percent",
    )


def _estimate(value: float, name: str, intervals: Mapping[str, Interval]) -> Estimate:
    return Estimate(value, intervals.get(name))


def _rate(rate: CountedRate) -> Estimate | None:
    return None if rate.value is None else Estimate(rate.value, rate.exact)
