"""`python -m train fit` and `python -m train resume`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from train.fit import Stop, fit, resume
from train.recipes import load_recipe
from train.run import CARD

RESUME = "python -m train resume {arguments.folder}"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    fitting = commands.add_parser("fit", help="train a recipe into a new run folder")
    fitting.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    fitting.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", dest="overrides",
        help="override one value of the recipe, such as finetune.epochs=5; repeatable",
    )  # fmt: skip
    fitting.add_argument(
        "--to", type=Path, metavar="DIR", dest="folder", help="run folder (runs/NAME of the recipe)"
    )
    fitting.set_defaults(run=_fit, go_on=RESUME)

    resuming = commands.add_parser("resume", help="go on with an interrupted run")
    resuming.add_argument("folder", type=Path, metavar="RUN")
    resuming.set_defaults(run=_resume, go_on=RESUME)


def _fit(arguments: argparse.Namespace, console: Console, stop: Stop) -> None:
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    arguments.folder = arguments.folder or Path("runs") / recipe.name
    fit(recipe, arguments.folder, console=console, stop=stop)
    _say_next(arguments.folder, console)


def _resume(arguments: argparse.Namespace, console: Console, stop: Stop) -> None:
    resume(arguments.folder, console=console, stop=stop)
    _say_next(arguments.folder, console)


def _say_next(folder: Path, console: Console) -> None:
    console.print(
        f"finished: {folder / CARD}\nnext:\n  python -m train evaluate {folder}\n"
        f"  python -m export bundle {folder} --to models/{folder.name}",
        highlight=False,
        soft_wrap=True,
    )
