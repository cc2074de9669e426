"""`python -m train split`: one split of a run's data, for `oodserve calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from oodserve.errors import DataError
from train.data.folders import SPLITS, open_splits
from train.data.splitting import write_split
from train.recipes import load_recipe
from train.run import RECIPE


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "split", help="write one split of a run's data as folders, for `oodserve calibrate`"
    )
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument("name", choices=SPLITS, metavar="SPLIT", help=", ".join(SPLITS))
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="a folder to make")
    parser.set_defaults(run=_split)


def _split(arguments: argparse.Namespace, console: Console) -> None:
    recipe = load_recipe(arguments.folder / RECIPE)
    images = getattr(open_splits(recipe.data, recipe.input), arguments.name)
    if images is None:
        raise DataError(
            f"the recipe keeps no `{arguments.name}` images; set "
            f"`data.{arguments.name}_fraction` above 0 and train again"
        )
    count = write_split(images, arguments.to)
    console.print(f"wrote {count} images to {arguments.to}", highlight=False)
