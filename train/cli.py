"""The command `python -m train`: data, fit, resume, split, evaluate, compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from oodserve.errors import DataError, OodserveError
from train.compare import compare, load_comparison, to_markdown
from train.data.digits import write_digits
from train.data.folders import SPLITS, open_splits
from train.data.splitting import write_split
from train.evaluate import as_table, evaluate, write_evaluation
from train.figures import draw_evaluation
from train.fit import Interrupted, Stop, fit, resume, stop_on_signal
from train.recipes import load_recipe
from train.run import CARD, RECIPE, load_run

DATA_SETS = {"digits": write_digits}
"""Built-in data sets by name; each is written as folders of images."""

RESUME = "python -m train resume {arguments.folder}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 done, 1 refused with a reason, 2 usage, 130 interrupted and resumable.
    """
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        if "go_on" in arguments:
            with stop_on_signal() as stop:
                arguments.run(arguments, console, stop)
        else:
            arguments.run(arguments, console)
    except Interrupted:
        console.print(
            f"interrupted; go on with `{arguments.go_on.format(arguments=arguments)}`",
            highlight=False,
            soft_wrap=True,
        )
        return 130
    except KeyboardInterrupt:
        return 130
    except OodserveError as error:
        sys.stderr.write(f"train: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Train classifiers that know when they do not know."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="write a built-in data set as folders of images")
    data.add_argument("name", choices=sorted(DATA_SETS), metavar="NAME", help=", ".join(DATA_SETS))
    data.add_argument("--to", required=True, type=Path, metavar="DIR", help="a folder to make")
    data.add_argument("--seed", type=int, default=0, help="seed of splits and pictures (0)")
    data.set_defaults(run=_data)

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

    splitting = commands.add_parser(
        "split", help="write one split of a run's data as folders, for `oodserve calibrate`"
    )
    splitting.add_argument("folder", type=Path, metavar="RUN")
    splitting.add_argument("name", choices=SPLITS, metavar="SPLIT", help=", ".join(SPLITS))
    splitting.add_argument("--to", required=True, type=Path, metavar="DIR", help="a folder to make")
    splitting.set_defaults(run=_split)

    evaluation = commands.add_parser(
        "evaluate", help="accuracy and OOD detection of a finished run, with a figure"
    )
    evaluation.add_argument("folder", type=Path, metavar="RUN")
    evaluation.set_defaults(run=_evaluate)

    comparison = commands.add_parser(
        "compare", help="train several methods over several seeds and tabulate them"
    )
    comparison.add_argument("comparison", type=Path, metavar="COMPARISON.toml")
    comparison.add_argument("--to", required=True, type=Path, metavar="DIR", dest="folder")
    comparison.set_defaults(
        run=_compare,
        go_on="python -m train compare {arguments.comparison} --to {arguments.folder}",
    )
    return parser


def _data(arguments: argparse.Namespace, console: Console) -> None:
    DATA_SETS[arguments.name](arguments.to, seed=arguments.seed)
    console.print(f"wrote {arguments.name} to {arguments.to}", highlight=False)


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


def _compare(arguments: argparse.Namespace, console: Console, stop: Stop) -> None:
    rows = compare(arguments.comparison, arguments.folder, console=console, stop=stop)
    comparison, _ = load_comparison(arguments.comparison)
    sys.stdout.write(to_markdown(rows, comparison))
