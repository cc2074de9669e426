"""`python -m train compare`: several methods over several seeds, one table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from train.compare import compare, load_comparison, to_markdown
from train.fit import Stop


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare", help="train several methods over several seeds and tabulate them"
    )
    parser.add_argument("comparison", type=Path, metavar="COMPARISON.toml")
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", dest="folder")
    parser.set_defaults(
        run=_compare,
        go_on="python -m train compare {arguments.comparison} --to {arguments.folder}",
    )


def _compare(arguments: argparse.Namespace, console: Console, stop: Stop) -> None:
    rows = compare(arguments.comparison, arguments.folder, console=console, stop=stop)
    comparison, _ = load_comparison(arguments.comparison)
    sys.stdout.write(to_markdown(rows, comparison))
