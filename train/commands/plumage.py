"""The part of `python -m train data` that draws the birds of `plumage`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oodserve.errors import DataError
from train.data.plumage.writing import SPLITS, scaled_counts, write_plumage

NAME = "plumage"
"""Name under which the data set is asked for."""

_SIDE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only this data set takes."""
    parser.add_argument(
        "--per-class", action="append", default=[], metavar="[SPLIT=]N",
        help="plumage: training images of each species, other splits in proportion, or the images "
        "of one split, such as test=120; repeatable (100)",
    )  # fmt: skip
    parser.add_argument(
        "--correlation", type=float, metavar="R",
        help="plumage: 0, habitats independent of species, to 1, each in its own (0)",
    )  # fmt: skip


def refuse_arguments(arguments: argparse.Namespace) -> None:
    """Refuse flags of this module for another data set.

    Raises
    ------
    DataError
        One was given.
    """
    given = {"--per-class": bool(arguments.per_class)}
    given["--correlation"] = arguments.correlation is not None
    for flag, is_given in given.items():
        if is_given:
            raise DataError(
                f"`{arguments.name}` takes no `{flag}`, which is for `{NAME}`; leave it out"
            )


def write(arguments: argparse.Namespace, console: Console) -> None:
    """Draw and write what was asked for, with a progress bar.

    Raises
    ------
    DataError
        The folder exists already or an argument is out of its range.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("drawing", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        write_plumage(
            arguments.to,
            seed=arguments.seed,
            side=_SIDE if arguments.side is None else arguments.side,
            counts=counts_of(arguments.per_class),
            correlation=arguments.correlation or 0.0,
            advance=advance,
        )


def counts_of(given: Sequence[str]) -> dict[str, int]:
    """Read the values of ``--per-class``; later ones win.

    Returns
    -------
    dict of str to int
        Images of each species by split.

    Raises
    ------
    DataError
        A value is neither a number nor ``SPLIT=NUMBER``.
    """
    counts = dict(SPLITS)
    for text in given:
        split, equals, number = text.rpartition("=")
        if not number.isdecimal() or bool(split) != bool(equals):
            raise DataError(
                f"`--per-class {text}` is neither a whole number nor `SPLIT=N`; "
                f"splits: {', '.join(SPLITS)}"
            )
        if split:
            counts[split] = int(number)
        elif int(number) < 1:
            raise DataError(f"`--per-class {text}` leaves nothing to train on; give 1 or more")
        else:
            counts = scaled_counts(int(number))
    return counts
