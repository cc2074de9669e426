"""`python -m train compare`: several methods over several seeds, in tables and a figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from oodserve.errors import RecipeError
from train.comparison import running, tables
from train.comparison.plan import load_plan
from train.fit import Stop


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="train several methods over several seeds, or take finished runs, and tabulate them",
        description=(
            "With a comparison file: make its runs, each cached and resumable, and tabulate them. "
            "With run folders: tabulate their evaluations; runs that differ in the seed alone are "
            "one row."
        ),
    )
    parser.add_argument(
        "comparison", type=Path, nargs="+", metavar="COMPARISON.toml|RUN",
        help="a comparison file, or folders of evaluated runs",
    )  # fmt: skip
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", dest="folder")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N",
        help="runs at a time, each a process with its share of the cores (1)",
    )  # fmt: skip
    parser.add_argument(
        "--only", metavar="RUN", help="make this one run, such as seed-0/mixoe, and no tables"
    )
    parser.set_defaults(run=_compare, go_on="{arguments.again}")


def _compare(arguments: argparse.Namespace, console: Console, stop: Stop) -> None:
    given, folder = arguments.comparison, arguments.folder
    arguments.again = f"python -m train compare {' '.join(map(str, given))} --to {folder}"
    if arguments.jobs < 1:
        raise RecipeError(f"`--jobs {arguments.jobs}` makes no run; give 1 or more")
    if not any(path.suffix == ".toml" for path in given):
        _tabulate(tables.collect_runs(given), folder, console)
        return
    if len(given) > 1:
        raise RecipeError(
            "give one comparison file, or run folders, but not both: "
            + " ".join(f"`{path}`" for path in given)
        )
    plan = load_plan(given[0], folder)
    if arguments.only:
        running.make(plan, running.task_named(plan, arguments.only), console=console, stop=stop)
        return
    running.make_all(plan, given[0], jobs=arguments.jobs, console=console, stop=stop)
    _tabulate(tables.collect(plan), folder, console)


def _tabulate(compared: tables.Compared, folder: Path, console: Console) -> None:
    tables.write(compared, folder)
    drawn = tables.draw(compared, folder, score=compared.scores[0])
    sys.stdout.write(tables.as_markdown(compared))
    files = [folder / tables.MARKDOWN, folder / tables.LATEX, *drawn]
    console.print(f"written: {', '.join(map(str, files))}", highlight=False, soft_wrap=True)
