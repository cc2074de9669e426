"""Formats by name. To add one, write a reader in a file of its own and a line here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from oodserve.errors import DataError
from train.data.formats.aircraft import AIRCRAFT
from train.data.formats.birds import CUB, NABIRDS
from train.data.formats.butterflies import BUTTERFLY200
from train.data.formats.cifar import CIFAR10, CIFAR100
from train.data.formats.dogs import THUDOGS
from train.data.formats.flat import (
    INATURALIST,
    LSUN,
    NINCO,
    OPENIMAGE_O,
    PLACES365,
    SUN,
    TEXTURES,
)
from train.data.formats.image_list import OPENOOD
from train.data.formats.imagenet import IMAGENET
from train.data.formats.matlab import CARS, FLOWERS
from train.data.formats.spurious import CELEBA, WATERBIRDS
from train.data.formats.tree import Format, Incomplete, Tree
from train.data.formats.webvision import WEBVISION

FORMATS: dict[str, Format] = {
    "aircraft": AIRCRAFT,
    "butterfly200": BUTTERFLY200,
    "cars": CARS,
    "celeba": CELEBA,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "cub": CUB,
    "flowers": FLOWERS,
    "imagenet": IMAGENET,
    "inaturalist": INATURALIST,
    "lsun": LSUN,
    "nabirds": NABIRDS,
    "ninco": NINCO,
    "openimage_o": OPENIMAGE_O,
    "openood": OPENOOD,
    "places365": PLACES365,
    "sun": SUN,
    "textures": TEXTURES,
    "thudogs": THUDOGS,
    "waterbirds": WATERBIRDS,
    "webvision": WEBVISION,
}
"""Readers of published data sets."""


def open_format(name: str, root: Path, options: Mapping[str, str] | None = None) -> Tree:
    """Read a published data set; images are listed, not opened.

    Parameters
    ----------
    name : str
        A key of `FORMATS`.
    root : Path
        Folder with its files, or the folder that its archives were unpacked in.
    options : mapping of str to str, optional
        Some of the format's options.

    Raises
    ------
    DataError
        `root` is no folder, an option or its value is unknown, a file is missing (the layout is
        shown), or the files do not fit together.
    """
    published = FORMATS[name]
    if not root.is_dir():
        raise DataError(f"`{root}` is not a folder; give the folder of {published.title}")
    chosen = {key: option.default for key, option in published.options.items()}
    for key, value in (options or {}).items():
        if key not in chosen:
            near = difflib.get_close_matches(key, chosen, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(chosen) or 'none'}"
            raise DataError(f"`{name}` has no option `{key}`; {hint}")
        choices = published.options[key].choices
        if choices and value not in choices:
            raise DataError(f"`{key}` = {value!r}: expected one of {', '.join(choices)}")
        chosen[key] = value
    try:
        tree = published.read(root, chosen)
    except Incomplete as missing:
        raise DataError(
            f"there is no `{missing.path}`; {published.title} is read from\n{published.layout}"
        ) from None
    if not tree.flat and not any(tree.splits.values()):
        raise DataError(
            f"`{root}` lists no image; {published.title} is read from\n{published.layout}"
        )
    return tree
