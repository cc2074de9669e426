"""`python -m train tune`: hyper-parameters, chosen by outliers made of the validation images."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from oodserve.errors import RecipeError
from train.fit import Stop
from train.tune import tune
from train.tuning.outcomes import BEST, RESULTS, Result, Tuning
from train.tuning.search import load_search


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "tune", help="search for hyper-parameters, without a look at test images or OOD sets"
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", dest="folder")
    parser.add_argument("--trials", required=True, type=int, metavar="N", help="how many in all")
    parser.add_argument(
        "--search", action="append", default=[], metavar="KEY.PATH=RULE",
        help="vary a key, such as method.mix_alpha=log:0.1:10; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--search-file", type=Path, metavar="SEARCH.toml", help="the same as a file"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", dest="overrides",
        help="override one value of the recipe; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--accuracy-floor", type=float, default=-0.01, metavar="D",
        help="least validation accuracy, less that of the pretrained model (-0.01)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the search and the outliers (0)")
    parser.set_defaults(run=_tune, go_on="{arguments.again}")


def _tune(arguments: argparse.Namespace, console: Console, stop: Stop) -> None:
    tuning = Tuning(
        path=arguments.recipe,
        overrides=tuple(arguments.overrides),
        space=load_search(arguments.search_file, arguments.search),
        accuracy_floor=arguments.accuracy_floor,
        seed=arguments.seed,
    )
    folder: Path = arguments.folder
    arguments.again = _command(arguments)
    result = tune(tuning, folder, trials=arguments.trials, console=console, stop=stop)
    output = Console()
    # A pipe has no width of its own; 80 columns would cut the words.
    Console(width=None if output.is_terminal else 120).print(_table(result, tuning))
    if result.best is None:
        raise RecipeError(
            f"none of {len(result.outcomes)} trials keeps the validation accuracy of "
            f"{result.baseline:.4f} within {tuning.accuracy_floor:g}; widen the search or lower "
            f"`--accuracy-floor`; all trials are in `{folder / RESULTS}`"
        )
    sys.stdout.write((folder / BEST).read_text(encoding="utf-8"))
    console.print(
        f"written: {folder / BEST}\nnext:\n  python -m train fit {folder / BEST}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the same search."""
    words = ["tune", arguments.recipe, "--to", arguments.folder, "--trials", arguments.trials]
    words += [f"--search={text}" for text in arguments.search]
    words += [f"--set={text}" for text in arguments.overrides]
    if arguments.search_file:
        words += ["--search-file", arguments.search_file]
    words += [f"--accuracy-floor={arguments.accuracy_floor:g}", "--seed", arguments.seed]
    return f"python -m train {shlex.join(map(str, words))}"


def _table(result: Result, tuning: Tuning) -> Table:
    keys = [dimension.key for dimension in tuning.space]
    table = Table(
        "trial", *keys, "AUROC", "accuracy", "",
        title=f"validation accuracy of the pretrained model {result.baseline:.4f}",
    )  # fmt: skip
    for outcome in sorted(result.outcomes, key=lambda item: (-item.feasible, -item.auroc)):
        note = "best" if outcome is result.best else "" if outcome.feasible else "below the floor"
        values = [_shown(outcome.values[key]) for key in keys]
        table.add_row(
            str(outcome.number), *values, f"{outcome.auroc:.4f}", f"{outcome.accuracy:.4f}",
            "diverged" if outcome.diverged else note,
        )  # fmt: skip
    return table


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
