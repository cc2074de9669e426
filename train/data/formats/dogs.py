"""Tsinghua Dogs: two lists of files, whose folders are the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oodserve.errors import DataError
from train.data.formats.tree import (
    Format,
    ImageFile,
    Option,
    Tree,
    inside,
    labelled,
    need,
    relative_name,
    rows,
)


def read_thudogs(root: Path, options: Mapping[str, str]) -> Tree:
    """Read the official division; its validation images are the test images here.

    Lines look like ``.//200-n000008-Airedale/n107027.jpg``; classes are the folders, by name.

    Raises
    ------
    DataError
        A line names no folder.
    Incomplete
        A file is missing.
    """
    folder = need(root / options["resolution"])
    lists = inside(root, "TrainValSplit") / "TrainAndValList"
    found: list[tuple[str, str, str]] = []
    for file, split in (("train.lst", "train"), ("validation.lst", "test")):
        for (line,) in rows(lists / file, 1):
            label, slash, name = relative_name(line).partition("/")
            if not slash:
                raise DataError(f"`{lists / file}` has `{line}`; expected CLASS/FILE")
            found.append((split, label, name))
    classes = sorted({label for _, label, _ in found})
    place = {label: number for number, label in enumerate(classes)}
    return labelled(
        classes,
        [
            (split, place[label], ImageFile(name, folder / label / name))
            for split, label, name in found
        ],
    )


THUDOGS = Format(
    "Tsinghua Dogs",
    """\
    TrainAndValList/train.lst, validation.lst       .//CLASS/FILE.jpg
    low-resolution/CLASS/FILE.jpg                   (or high-resolution)""",
    read_thudogs,
    {
        "resolution": Option(
            "low-resolution", "folder of the images", ("low-resolution", "high-resolution")
        )
    },
)
