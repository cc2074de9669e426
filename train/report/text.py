"""An evaluation as Markdown and as LaTeX."""

from __future__ import annotations

from train.evaluation.document import Evaluation
from train.report.tables import escape_latex, escape_markdown, to_latex, to_markdown
from train.report.views import tables

EXPLANATIONS: dict[str, str] = {
    "auroc": "chance that a known image scores above an outlier, ties counting half",
    "aupr_ood, aupr_id": "average precision with outliers, or with known images, as what is to be "
    "found; NAME@5:1 is at five known images to one outlier, by weighing the images",
    "fpr@95tpr_ood": "share of known images flagged when at least 95 % of the outliers are caught",
    "ood_miss@95id": "share of outliers accepted when at least 95 % of the known images are",
    "tau": "threshold from the calibration images; an image is out when its score is below it",
    "false_alarms, coverage": "shares of the known test images below tau, and at or above it",
    "selective_risk": "share of wrong answers among the known images at or above tau",
    "ood_recall": "share of the outliers below tau",
    "risk_with_ood": "share of wrong answers among all images at or above tau, every outlier "
    "counting as wrong, at the proportion of the test images",
    "aurc": "mean of the selective risk over all coverages; an order by chance has the error rate",
}
"""What each figure of the tables is."""


def headline(evaluation: Evaluation) -> str:
    """Return the accuracy in one sentence."""
    low, high = evaluation.accuracy_interval
    return (
        f"Accuracy {100 * evaluation.accuracy:.2f} % "
        f"[{100 * low:.2f}, {100 * high:.2f}] on {evaluation.test_images} test images of "
        f"{len(evaluation.run.classes)} classes; method {evaluation.run.method}, "
        f"seed {evaluation.run.seed}."
    )


def intervals_note(evaluation: Evaluation) -> str:
    """Return how the intervals were made."""
    return (
        f"Intervals are two-sided at {100 * evaluation.confidence:g} %. Those of rates at tau and "
        "of the accuracy are exact (Clopper-Pearson), the others percentile bootstraps over "
        f"{evaluation.resamples} resamples of the images; none covers the drawing of training "
        "runs. "
        "Bold is best among the scores on the same set."
    )


def markdown_report(evaluation: Evaluation) -> str:
    """Return `evaluation.md`."""
    name = escape_markdown(evaluation.run.name)
    parts = [f"# Evaluation of {name}\n", f"{escape_markdown(headline(evaluation))}\n"]
    parts += [f"Note: {escape_markdown(note)}\n" for note in evaluation.notes]
    parts += [to_markdown(table) for table in tables(evaluation)]
    parts.append(
        "".join(f"- `{figure}`: {escape_markdown(what)}\n" for figure, what in EXPLANATIONS.items())
    )
    parts.append(f"{intervals_note(evaluation)}\n")
    return "\n".join(parts)


def latex_report(evaluation: Evaluation) -> str:
    r"""Return `evaluation.tex`: tables to ``\input``, which need the package booktabs."""
    lines = [
        "% Needs \\usepackage{booktabs}.",
        f"% {escape_latex(headline(evaluation))}",
        f"% {escape_latex(intervals_note(evaluation))}",
        *(f"% {escape_latex(note)}" for note in evaluation.notes),
    ]
    made = [
        to_latex(table, label=f"tab:evaluation-{number}")
        for number, table in enumerate(tables(evaluation), start=1)
    ]
    return "\n".join([*lines, "", *made])
