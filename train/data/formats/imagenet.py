"""ImageNet 2012 or some of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oodserve.errors import DataError
from oodserve.folders import list_images
from train.data.formats.tree import (
    Format,
    ImageFile,
    Incomplete,
    Item,
    Option,
    Tree,
    inside,
    labelled,
    need,
    rows,
)


def read_imagenet(root: Path, options: Mapping[str, str]) -> Tree:
    """Read the training images, and the validation images as the test split.

    Classes are synsets in the order of the list, or sorted where all are taken, which is ImageNet's
    order.

    Raises
    ------
    DataError
        The validation images are not sorted into classes, or a listed class has no folder.
    Incomplete
        A folder is missing.
    """
    root = inside(root, "ILSVRC/Data/CLS-LOC", "ILSVRC2012")
    folders = {"train": need(root / "train"), "test": need(root / "val")}
    classes = _classes(options["classes"], folders["train"])
    found: list[tuple[str, int, Item]] = []
    for split, folder in folders.items():
        if not any(entry.is_dir() for entry in folder.iterdir()):
            raise DataError(
                f"`{folder}` has no class folders; sort its images into `{folder}/SYNSET/`"
            )
        for number, synset in enumerate(classes):
            if not (folder / synset).is_dir():
                raise DataError(f"the class `{synset}` has no folder in `{folder}`; add it")
            found += [
                (split, number, ImageFile(path.name, path)) for path in list_images(folder / synset)
            ]
    return labelled(classes, found)


def _classes(file: str, train: Path) -> list[str]:
    if not file:
        return sorted(entry.name for entry in train.iterdir() if entry.is_dir())
    try:
        synsets = [cells[0].split()[0] for cells in rows(Path(file), 1)]
    except Incomplete:
        raise DataError(f"there is no file `{file}` to read synsets from") from None
    twice = [synset for place, synset in enumerate(synsets) if synset in synsets[:place]]
    if twice:
        raise DataError(f"`{file}` names `{twice[0]}` twice; name each class once")
    return synsets


IMAGENET = Format(
    "ImageNet 2012",
    """\
    train/n01440764/*.JPEG
    val/n01440764/*.JPEG                    sorted into classes""",
    read_imagenet,
    {"classes": Option("", "file with one synset a line; all classes without it")},
)
