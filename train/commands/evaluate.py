"""`python -m train evaluate`: the figures of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from train.evaluate import as_table, evaluate, write_evaluation
from train.figures import draw_evaluation
from train.run import load_run


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate", help="accuracy and OOD detection of a finished run, with a figure"
    )
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace, console: Console) -> None:
    evaluation = evaluate(load_run(arguments.folder))
    write_evaluation(evaluation, arguments.folder)
    figure = draw_evaluation(evaluation, arguments.folder)
    header, *rows = as_table(evaluation)
    table = Table(
        *header,
        title=f"accuracy {evaluation.accuracy:.4f} on {evaluation.test_images} test images",
    )
    for row in rows:
        table.add_row(*row)
    output = Console()
    # A pipe has no width of its own; 80 columns would cut the words.
    Console(width=None if output.is_terminal else 120).print(table)
    console.print(f"figure: {figure}", highlight=False)
