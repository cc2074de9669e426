"""Butterfly-200: three lists of files with four labels each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from train.data.formats.tree import (
    Format,
    ImageFile,
    Item,
    Option,
    Tree,
    inside,
    integer,
    labelled,
    need,
    relative_name,
    rows,
)

_LEVELS = ("species", "genus", "subfamily", "family")
_LISTS = {"train": "train", "val": "validation", "test": "test"}


def read_butterfly200(root: Path, options: Mapping[str, str]) -> Tree:
    """Read one level of the hierarchy.

    Species are named as their folders, such as ``001.Atrophaneura_horishanus``, the other levels by
    their numbers. With the numbering ``published`` there is a class for each number from 0 to the
    largest one, whether it has images or not: the published numbers start at 1, so class ``0`` is
    empty. This is how a benchmark that drew from 0 to 199 came to a class without images.

    Raises
    ------
    DataError
        A line is malformed.
    Incomplete
        A file is missing.
    """
    root = inside(root, "Butterfly200")
    folder = inside(root, "images", "images_small")
    if folder == root:
        need(root / "images")
    column = 1 + _LEVELS.index(options["level"])
    found: list[tuple[str, int, Item]] = []
    names: dict[int, str] = {}
    for part, split in _LISTS.items():
        path = root / f"Butterfly200_{part}_release.txt"
        for cells in rows(path, 5, last=True):
            name = Path(relative_name(cells[0]))
            label = integer(cells[column], path)
            names[label] = name.parent.name if column == 1 else f"{label:03d}"
            found.append((split, label, ImageFile(name.name, folder / name)))
    if options["numbering"] == "published":
        classes = [str(number) for number in range(max(names, default=0) + 1)]
        return labelled(classes, found)
    order = sorted(names)
    place = {label: position for position, label in enumerate(order)}
    return labelled(
        [names[label] for label in order],
        [(split, place[label], item) for split, label, item in found],
    )


BUTTERFLY200 = Format(
    "Butterfly-200",
    """\
    Butterfly200/Butterfly200_train_release.txt, _val_, _test_
                                        FOLDER/FILE.jpg SPECIES GENUS SUBFAMILY FAMILY
    Butterfly200/images/FOLDER/FILE.jpg             (or images_small)""",
    read_butterfly200,
    {
        "level": Option("species", "level of the hierarchy", _LEVELS),
        "numbering": Option(
            "names",
            "classes with images only, or every published number from 0",
            ("names", "published"),
        ),
    },
)
