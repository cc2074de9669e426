"""The part of `python -m train data` that reads published sets and makes outliers of images."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from oodserve.errors import DataError
from oodserve.folders import list_images
from train.data.formats.registry import FORMATS, open_format
from train.data.formats.tree import SPLITS
from train.data.importing import import_flat, import_tree
from train.data.placing import LINKS, Placing
from train.data.sources import ImageFiles
from train.data.validation_outliers import write_validation_outliers

VALIDATION_OUTLIERS = "validation_outliers"
"""Name under which outliers made of images are asked for."""

NAMES = (*FORMATS, VALIDATION_OUTLIERS)
"""What is read from a folder instead of being built in."""

_BACKGROUND = (255, 255, 255)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only these names take."""
    parser.add_argument(
        "--from", type=Path, metavar="DIR", dest="source",
        help="folder of a published data set, or of the images to make outliers of",
    )  # fmt: skip
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", dest="options",
        help="an option of the format, such as level=family; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--known", default="all", metavar="RULE",
        help="classes to learn: all, random:SEED:COUNT[:OF], ranked:FILE:COUNT or list:FILE",
    )  # fmt: skip
    parser.add_argument(
        "--allow-empty", action="store_true", help="leave out chosen classes without images"
    )
    parser.add_argument(
        "--as", metavar="PLACE", dest="place",
        help="`outliers`, `ood:NAME` or `folder`: one folder of images of no class",
    )  # fmt: skip
    parser.add_argument("--sample", type=int, metavar="N", help="with --as: so many, at random")
    parser.add_argument(
        "--link", choices=LINKS, default="symlink", metavar="HOW", help=", ".join(LINKS)
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="processes that write resized or unpacked images (all CPUs)",
    )


def refuse_arguments(arguments: argparse.Namespace) -> None:
    """Refuse flags of this module for a data set that is built in.

    Raises
    ------
    DataError
        One was given.
    """
    flags = {
        "--from": arguments.source, "--option": arguments.options,
        "--known": arguments.known != "all", "--allow-empty": arguments.allow_empty,
        "--as": arguments.place, "--sample": arguments.sample,
        "--link": arguments.link != "symlink", "--processes": arguments.processes,
    }  # fmt: skip
    for flag, given in flags.items():
        if given:
            raise DataError(
                f"`{arguments.name}` is built in and takes no `{flag}`; leave it out, or name a "
                f"published data set: {', '.join(FORMATS)}"
            )


def write(arguments: argparse.Namespace, console: Console) -> str:
    """Write what was asked for and return a line about it.

    Raises
    ------
    DataError
        An argument is missing or does not fit, or the data set is not as published.
    """
    if arguments.source is None:
        raise DataError(f"`{arguments.name}` is read from a folder; give it with `--from DIR`")
    if arguments.name == VALIDATION_OUTLIERS:
        images = ImageFiles(tuple(list_images(arguments.source)), _BACKGROUND)
        count = write_validation_outliers(
            images, arguments.to, seed=arguments.seed, console=console
        )
        return f"wrote {count} outliers to {arguments.to}"
    options = _options(arguments.options)
    placing = _placing(arguments)
    # Without classes there is but one thing to do.
    place: str = arguments.place or ("folder" if FORMATS[arguments.name].flat else "")
    # Checked before a large set is read.
    to = _destination(arguments, place)
    tree = open_format(arguments.name, arguments.source, options)
    facts = {"format": arguments.name, "options": options}
    if not place:
        if arguments.sample is not None:
            raise DataError("`--sample` draws from images of no class; give `--as` as well")
        counts = import_tree(
            tree, to, facts=facts, known=arguments.known, allow_empty=arguments.allow_empty,
            placing=placing, console=console,
        )  # fmt: skip
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        return f"wrote {arguments.name} to {to}: {told}"
    if arguments.known != "all" or arguments.allow_empty:
        raise DataError(
            "`--known` and `--allow-empty` choose classes, which images of no class lack"
            "; leave them out"
        )
    count = import_flat(
        tree, to, facts=facts, split="train" if place == "outliers" else "test",
        sample=arguments.sample, seed=arguments.seed, placing=placing, console=console,
    )  # fmt: skip
    return f"wrote {count} images of {arguments.name} to {to}"


def _options(given: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise DataError(f"the option `{text}` is not of the form KEY=VALUE, as in level=family")
        options[key] = value
    return options


def _placing(arguments: argparse.Namespace) -> Placing:
    for flag, value in (("--side", arguments.side), ("--processes", arguments.processes)):
        if value is not None and value < 1:
            raise DataError(f"`{flag} {value}` is below 1; give a positive number")
    processes = arguments.processes or os.cpu_count() or 1
    return Placing(link=arguments.link, side=arguments.side, processes=processes)


def _destination(arguments: argparse.Namespace, place: str) -> Path:
    """Return the folder to make; `--to` is the tree it belongs to where it has a place in one."""
    to: Path = arguments.to
    if place in ("", "folder"):
        return to
    kind, _, name = place.partition(":")
    plain = name and not name.startswith(".") and Path(name).name == name
    if place != "outliers" and not (kind == "ood" and plain):
        raise DataError(f"`--as {place}`: expected `outliers`, `ood:NAME` or `folder`")
    if not any((to / split).is_dir() for split in SPLITS):
        raise DataError(
            f"`{to}` is no tree with {', '.join(SPLITS)} to add `{place}` to; write it first"
        )
    return to / "outliers" if place == "outliers" else to / "ood" / name
