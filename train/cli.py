"""The command `python -m train`; its subcommands are in `train.commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from oodserve.errors import OodserveError
from train.commands import compare, data, evaluate, fit, listing, split, tune
from train.distributed import launched, leave
from train.fit import Interrupted, stop_on_signal

COMMANDS = (data, fit, split, evaluate, compare, listing, tune)
"""Modules with `add_parser`, in the order of the help text."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 done, 1 refused with a reason, 2 usage, 130 interrupted and resumable.
    """
    arguments = _parser().parse_args(argv)
    launch = launched()
    console = Console(stderr=True, quiet=launch.rank > 0)
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
        # Said by each process: what one of them cannot read, the others may never see.
        place = f" (process {launch.rank})" if launch.rank else ""
        sys.stderr.write(f"train{place}: {error}\n")
        return 1
    finally:
        leave()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Train classifiers that know when they do not know."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
