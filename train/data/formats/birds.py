"""NABirds and Caltech-UCSD Birds 200-2011: one layout of numbered text files, two ways to count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from oodserve.errors import DataError
from train.data.formats.tree import (
    Format,
    ImageFile,
    Item,
    Tree,
    inside,
    integer,
    labelled,
    lookup,
    need,
    relative_name,
    rows,
)

_SPLIT = {"1": "train", "0": "test"}


def read_cub(root: Path, options: Mapping[str, str]) -> Tree:
    """Read CUB-200-2011; image and class numbers are counted from 1.

    Class names are those of its folders, such as ``001.Black_footed_Albatross``.

    Raises
    ------
    DataError
        The files do not fit together.
    Incomplete
        One of them is missing.
    """
    root = inside(root, "CUB_200_2011")
    names = dict(rows(root / "classes.txt", 2))
    order = sorted(names, key=lambda number: integer(number, root / "classes.txt"))
    place = {number: position for position, number in enumerate(order)}
    return labelled([names[number] for number in order], _entries(root, place))


def read_nabirds(root: Path, options: Mapping[str, str]) -> Tree:
    """Read NABirds: 555 of the 1,011 nodes of its hierarchy have images and are the classes.

    Their names are ``NUMBER.NAME`` with the published number, since names repeat in the hierarchy;
    they are counted from 0 in the order of these numbers.

    Raises
    ------
    DataError
        The files do not fit together.
    Incomplete
        One of them is missing.
    """
    root = inside(root, "nabirds")
    path = root / "classes.txt"
    names = {integer(number, path): name for number, name in rows(path, 2)}
    used = {label for _, label in rows(root / "image_class_labels.txt", 2)}
    numbers = sorted(integer(label, root / "image_class_labels.txt") for label in used)
    place = {label: position for position, label in enumerate(sorted(used, key=int))}
    unknown = [number for number in numbers if number not in names]
    if unknown:
        raise DataError(f"`{path}` has no entry `{unknown[0]}`, which images are labelled with")
    classes = [f"{number:04d}.{names[number].replace(' ', '_')}" for number in numbers]
    return labelled(classes, _entries(root, place))


def _entries(root: Path, place: Mapping[str, int]) -> Iterator[tuple[str, int, Item]]:
    labels = dict(rows(root / "image_class_labels.txt", 2))
    parts = dict(rows(root / "train_test_split.txt", 2))
    folder = need(root / "images")
    for image, file in rows(root / "images.txt", 2):
        label = lookup(labels, image, root / "image_class_labels.txt")
        part = lookup(parts, image, root / "train_test_split.txt")
        if label not in place or part not in _SPLIT:
            raise DataError(
                f"image `{image}` of `{root}` has class `{label}` and split `{part}`; expected a "
                "number of `classes.txt`, and 1 for training or 0 for test"
            )
        name = relative_name(file)
        yield _SPLIT[part], place[label], ImageFile(Path(name).name, folder / name)


_FILES = """\
    {0}/classes.txt                 NUMBER NAME
    {0}/images.txt                  IMAGE FOLDER/FILE.jpg
    {0}/image_class_labels.txt      IMAGE NUMBER
    {0}/train_test_split.txt        IMAGE 1 (training) or 0 (test)
    {0}/images/FOLDER/FILE.jpg"""

CUB = Format("Caltech-UCSD Birds 200-2011", _FILES.format("CUB_200_2011"), read_cub)
NABIRDS = Format("NABirds", _FILES.format("nabirds"), read_nabirds)
