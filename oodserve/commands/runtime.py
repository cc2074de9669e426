"""What the commands that run a bundle have in common: which one, where, and against what."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the bundle and the runtime that it is run on."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="models/NAME[/VERSION]")
    parser.add_argument(
        "--calibrations", type=Path, metavar="DIR", help="store of refreshed calibrations"
    )
    parser.add_argument(
        "--provider", default="cpu", choices=("cpu", "cuda"), help="execution provider (cpu)"
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="threads of one inference (all usable CPUs)"
    )


def positive(text: str) -> int:
    """Return a whole number above 0, for use as an argument's type."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def add_accept_mismatch(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the commands that decide against a calibration."""
    parser.add_argument(
        "--accept-runtime-mismatch",
        action="store_true",
        help="use a calibration that was made on another runtime",
    )
