"""`python -m train evaluate`: the figures of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oodserve.calibration import Rule
from train.evaluation.run import evaluate_run
from train.evaluation.settings import (
    BASE_RATES,
    RESAMPLES,
    EvaluationSettings,
    parse_groups,
    parse_ood_sets,
)
from train.report.tables import Table as Figures
from train.report.views import detection_table, tau_table
from train.report.writing import write_report
from train.run import load_run

RULES: tuple[Rule, ...] = ("pac", "marginal")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate", help="accuracy and OOD detection of a finished run, with a report"
    )
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument(
        "--ood", action="append", default=[], metavar="NAME=FOLDER",
        help="a further out-of-distribution set; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--score", action="append", default=[], metavar="NAME", dest="scores",
        help="a score to evaluate; repeatable (those of the recipe)",
    )  # fmt: skip
    parser.add_argument(
        "--base-rate", action="append", default=[], metavar="ID:OOD", dest="base_rates",
        help=f"proportion for average precision; repeatable ({BASE_RATES[0]})",
    )  # fmt: skip
    parser.add_argument(
        "--group", action="append", default=[], metavar="GROUP=SET[,SET...]", dest="groups",
        help="report the mean over sets, such as near=held_out; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--rule", choices=RULES, default="pac", metavar="RULE", help="pac or marginal (pac)"
    )
    parser.add_argument(
        "--target-tpr", type=float, default=0.95, metavar="SHARE",
        help="share of known images that tau is to accept (0.95)",
    )  # fmt: skip
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, metavar="N",
        help=f"of the bootstrap ({RESAMPLES})",
    )  # fmt: skip
    parser.add_argument("--to", type=Path, metavar="DIR", help="where to write (RUN)")
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace, console: Console) -> None:
    settings = EvaluationSettings(
        ood=parse_ood_sets(arguments.ood),
        scores=tuple(dict.fromkeys(arguments.scores)) or None,
        base_rates=tuple(dict.fromkeys(arguments.base_rates)) or BASE_RATES,
        groups=parse_groups(arguments.groups),
        rule=arguments.rule,
        target_tpr=arguments.target_tpr,
        resamples=arguments.resamples,
    )
    run = load_run(arguments.folder)
    to = arguments.to or arguments.folder
    done = evaluate_run(run, to, settings=settings)
    page = write_report(run, done, to)
    evaluation = done.evaluation
    output = Console()
    # A pipe has no width of its own; 80 columns would cut the words.
    wide = Console(width=None if output.is_terminal else 140)
    title = f"accuracy {evaluation.accuracy:.4f} on {evaluation.test_images} test images"
    wide.print(_shown(detection_table(evaluation), title=title))
    if any(item.at_tau for item in evaluation.selective):
        wide.print(_shown(tau_table(evaluation), title="at tau"))
    for note in evaluation.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def _shown(table: Figures, *, title: str) -> Table:
    shown = Table(*(column.title for column in table.columns), title=title)
    for row in table.texts():
        shown.add_row(*(Text(text, style="bold" if bold else "") for text, bold in row))
    return shown
