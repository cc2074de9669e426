"""OpenOOD's image lists: one ``path label`` a line, label -1 for images of no class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oodserve.errors import DataError
from train.data.formats.tree import (
    Format,
    ImageFile,
    Incomplete,
    Item,
    Option,
    Tree,
    integer,
    labelled,
    relative_name,
    rows,
)

_SPLITS = ("train", "validation", "test")


def read_openood(root: Path, options: Mapping[str, str]) -> Tree:
    """Read lists with labels as splits, or one list without labels as a flat set.

    Paths are relative to `root`. Classes are called by their numbers, with as many digits as the
    largest has, unless ``names`` gives a file with a name a line.

    Raises
    ------
    DataError
        No list is given, a list is missing, labels and a flat list are mixed, a label is negative
        in a split, or there are more labels than names.
    """
    lists = {split: options[split] for split in _SPLITS if options[split]}
    if bool(lists) == bool(options["flat"]):
        raise DataError(
            "give the lists of a labelled set (`train`, `validation`, `test`), or one list "
            "`flat` of images of no class, as options"
        )
    if options["flat"]:
        listed = [name for name, _ in _read(Path(options["flat"]))]
        return Tree(flat=tuple(ImageFile(name, root / name) for name in listed))
    found: list[tuple[str, int, Item]] = []
    for split, file in lists.items():
        for name, label in _read(Path(file)):
            if label < 0:
                raise DataError(
                    f"`{file}` gives `{name}` the label {label}; images of no class belong into a "
                    "list of their own, given as `flat`"
                )
            found.append((split, label, ImageFile(name, root / name)))
    largest = max((label for _, label, _ in found), default=0)
    return labelled(_names(options["names"], largest), found)


def _read(path: Path) -> list[tuple[str, int]]:
    try:
        return [
            (relative_name(name), integer(label, path)) for name, label in rows(path, 2, last=True)
        ]
    except Incomplete:
        raise DataError(f"there is no image list `{path}`; give the path of the file") from None


def _names(file: str, largest: int) -> list[str]:
    if not file:
        return [f"{number:0{len(str(largest))}d}" for number in range(largest + 1)]
    try:
        return [name for (name,) in rows(Path(file), 1)]
    except Incomplete:
        raise DataError(f"there is no file `{file}` to read class names from") from None


OPENOOD = Format(
    "image lists of OpenOOD",
    """\
    PATH LABEL                              a line of a list; PATH is relative to the folder""",
    read_openood,
    {
        "train": Option("", "list of training images"),
        "validation": Option("", "list of validation images"),
        "test": Option("", "list of test images"),
        "flat": Option("", "list of images of no class, instead"),
        "names": Option("", "file with a class name a line; numbers without it"),
    },
)
