"""The command `oodserve`: predict, calibrate and inspect, without torch and without a server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from oodserve import __version__
from oodserve.commands import calibrate, inspect, predict, schema
from oodserve.errors import OodserveError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 refused with a reason, 2 usage."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except OodserveError as error:
        sys.stderr.write(f"oodserve: {error}\n")
        return 1
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oodserve",
        description="Classify images and say which are out of distribution.",
        epilog="Data goes to stdout, everything else to stderr.",
    )
    parser.add_argument("--version", action="version", version=f"oodserve {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (predict, calibrate, inspect, schema):
        command.add_parser(commands)
    return parser
