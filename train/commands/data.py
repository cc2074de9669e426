"""`python -m train data`: built-in and published data sets, written as folders of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from oodserve.errors import DataError
from train.commands import plumage, published
from train.data.digits import write_digits

DATA_SETS = {"digits": write_digits}
"""Built-in data sets by name; each is written as folders of images."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="write a data set as folders of images")
    names = (*DATA_SETS, plumage.NAME, *published.NAMES)
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="a folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and pictures (0)")
    parser.add_argument(
        "--side", type=int, metavar="PX",
        help="shorter side of the images; published ones keep theirs without it",
    )  # fmt: skip
    plumage.add_arguments(parser)
    published.add_arguments(parser)
    parser.set_defaults(run=_data)


def _data(arguments: argparse.Namespace, console: Console) -> None:
    if arguments.name != plumage.NAME:
        plumage.refuse_arguments(arguments)
    if arguments.name in published.NAMES:
        console.print(published.write(arguments, console), highlight=False, soft_wrap=True)
        return
    published.refuse_arguments(arguments)
    if arguments.name == plumage.NAME:
        plumage.write(arguments, console)
    elif arguments.side is not None:
        raise DataError(f"`{arguments.name}` has one size and takes no `--side`; leave it out")
    else:
        DATA_SETS[arguments.name](arguments.to, seed=arguments.seed)
    console.print(f"wrote {arguments.name} to {arguments.to}", highlight=False)
