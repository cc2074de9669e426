"""`python -m train data`: built-in data sets, written as folders of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from train.data.digits import write_digits

DATA_SETS = {"digits": write_digits}
"""Built-in data sets by name; each is written as folders of images."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="write a built-in data set as folders of images")
    parser.add_argument(
        "name", choices=sorted(DATA_SETS), metavar="NAME", help=", ".join(DATA_SETS)
    )
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="a folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and pictures (0)")
    parser.set_defaults(run=_data)


def _data(arguments: argparse.Namespace, console: Console) -> None:
    DATA_SETS[arguments.name](arguments.to, seed=arguments.seed)
    console.print(f"wrote {arguments.name} to {arguments.to}", highlight=False)
