"""FGVC-Aircraft: one list of images for each level of its hierarchy and each split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from oodserve.errors import DataError
from train.data.formats.tree import (
    Format,
    ImageFile,
    Item,
    Option,
    Tree,
    inside,
    labelled,
    need,
    rows,
)

_LISTS = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read_aircraft(root: Path, options: Mapping[str, str]) -> Tree:
    """Read one level; classes are in the order of its list, with ``/`` in names written ``-``.

    Raises
    ------
    DataError
        An image has a class that the list lacks.
    Incomplete
        A file is missing.
    """
    folder = inside(inside(root, "fgvc-aircraft-2013b"), "data")
    level = options["level"]
    names = [name for (name,) in rows(folder / f"{_LISTS[level]}.txt", 1)]
    return labelled(names, _entries(folder, level, names))


def _entries(folder: Path, level: str, names: list[str]) -> Iterator[tuple[str, int, Item]]:
    place = {name: number for number, name in enumerate(names)}
    images = need(folder / "images")
    for part, split in _SPLITS.items():
        path = folder / f"images_{level}_{part}.txt"
        for number, name in rows(path, 2):
            if name not in place:
                raise DataError(
                    f"`{path}` gives image {number} the {level} `{name}`, which `{_LISTS[level]}"
                    ".txt` lacks; restore the files"
                )
            yield split, place[name], ImageFile(f"{number}.jpg", images / f"{number}.jpg")


AIRCRAFT = Format(
    "FGVC-Aircraft 2013b",
    """\
    fgvc-aircraft-2013b/data/variants.txt (families.txt, manufacturers.txt)
    fgvc-aircraft-2013b/data/images_variant_train.txt, _val.txt, _test.txt     NUMBER NAME
    fgvc-aircraft-2013b/data/images/NUMBER.jpg""",
    read_aircraft,
    {"level": Option("variant", "100 variants, 70 families or 30 manufacturers", tuple(_LISTS))},
)
