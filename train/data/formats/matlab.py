"""Stanford Cars and Oxford Flowers 102, whose labels are in MATLAB files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from oodserve.errors import DataError
from train.data.formats.tree import (
    Format,
    ImageFile,
    Item,
    Tree,
    inside,
    labelled,
    need,
    relative_name,
)

_FLOWER_SPLITS = {"trnid": "train", "valid": "validation", "tstid": "test"}


def read_cars(root: Path, options: Mapping[str, str]) -> Tree:
    """Read Stanford Cars; class numbers are counted from 1 in the order of ``cars_meta.mat``.

    The annotations of the test images were published later than those without labels; they are
    looked for beside the folder ``devkit`` and in it.

    Raises
    ------
    DataError
        A file is not a MATLAB file or lacks a variable.
    Incomplete
        A file is missing.
    """
    root = inside(root, "stanford_cars")
    kit = root / "devkit"
    names = [str(name) for name in _variable(kit / "cars_meta.mat", "class_names").ravel()]
    name = "cars_test_annos_withlabels.mat"
    test = kit / name if (kit / name).exists() else root / name
    lists = {"train": kit / "cars_train_annos.mat", "test": test}
    return labelled(names, _car_entries(root, lists))


def _car_entries(root: Path, lists: Mapping[str, Path]) -> Iterator[tuple[str, int, Item]]:
    for split, path in lists.items():
        folder = need(root / f"cars_{split}")
        for record in _variable(path, "annotations").ravel():
            if "class" not in (record.dtype.names or ()):
                raise DataError(
                    f"`{path}` has images without classes; take the annotations with labels"
                )
            file = relative_name(str(record["fname"]))
            yield split, int(record["class"]) - 1, ImageFile(file, folder / file)


def read_flowers(root: Path, options: Mapping[str, str]) -> Tree:
    """Read Oxford Flowers 102; images and classes are counted from 1, classes have no names.

    They are called ``001`` to ``102``. The official split trains on 10 images a class and tests on
    the 6,149 that are left.

    Raises
    ------
    DataError
        A file is not a MATLAB file or lacks a variable, or a split names an image without label.
    Incomplete
        A file is missing.
    """
    root = inside(root, "flowers-102")
    labels = _variable(root / "imagelabels.mat", "labels").ravel()
    names = [f"{number:03d}" for number in range(1, int(labels.max()) + 1)]
    return labelled(names, _flower_entries(root, labels))


def _flower_entries(root: Path, labels: NDArray[Any]) -> Iterator[tuple[str, int, Item]]:
    folder = need(root / "jpg")
    for key, split in _FLOWER_SPLITS.items():
        for number in _variable(root / "setid.mat", key).ravel().tolist():
            if not 1 <= number <= len(labels):
                raise DataError(
                    f"`{root / 'setid.mat'}` names image {number}, but `imagelabels.mat` has "
                    f"{len(labels)} labels; the files of the set do not fit together"
                )
            file = f"image_{number:05d}.jpg"
            yield split, int(labels[number - 1]) - 1, ImageFile(file, folder / file)


def _variable(path: Path, name: str) -> NDArray[Any]:
    try:
        content = loadmat(need(path), squeeze_me=True)
    except (MatReadError, ValueError, NotImplementedError, TypeError, OSError) as error:
        raise DataError(f"`{path}` is not a MATLAB file ({error}); restore it") from error
    if name not in content:
        raise DataError(f"`{path}` has no variable `{name}`; restore the file")
    # Squeezing leaves a lone number bare.
    return np.asarray(content[name])


CARS = Format(
    "Stanford Cars",
    """\
    stanford_cars/devkit/cars_meta.mat
    stanford_cars/devkit/cars_train_annos.mat
    stanford_cars/cars_test_annos_withlabels.mat    (or in devkit/)
    stanford_cars/cars_train/00001.jpg
    stanford_cars/cars_test/00001.jpg""",
    read_cars,
)
FLOWERS = Format(
    "Oxford Flowers 102",
    """\
    flowers-102/imagelabels.mat
    flowers-102/setid.mat
    flowers-102/jpg/image_00001.jpg""",
    read_flowers,
)
