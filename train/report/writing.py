"""Writing a report beside its evaluation."""

from __future__ import annotations

from pathlib import Path

from train.checkpoint import replace_text
from train.evaluation.run import Evaluated
from train.report.gallery import gallery
from train.report.page import html_report
from train.report.text import latex_report, markdown_report
from train.run import TrainedRun

MARKDOWN, LATEX, PAGE = "evaluation.md", "evaluation.tex", "report.html"


def write_report(run: TrainedRun, done: Evaluated, folder: Path) -> Path:
    """Write `evaluation.md`, `evaluation.tex` and `report.html`, and return the last one's path.

    Parameters
    ----------
    run : TrainedRun
    done : Evaluated
        What `train.evaluation.run.evaluate_run` returned for it.
    folder : Path
        Must exist; files of these names are replaced.
    """
    evaluation = done.evaluation
    replace_text(folder / MARKDOWN, markdown_report(evaluation))
    replace_text(folder / LATEX, latex_report(evaluation))
    page = folder / PAGE
    replace_text(page, html_report(evaluation, gallery(run, done)))
    return page
