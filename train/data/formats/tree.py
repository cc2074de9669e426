"""What a reader of a published data set returns, and what all readers need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from oodserve.errors import DataError

SPLITS = ("train", "validation", "calibration", "test")
"""Splits that a tree may have."""


@dataclass(frozen=True)
class ImageFile:
    """An image that is a file already.

    Attributes
    ----------
    name : str
        Relative path with ``/`` that it gets below its class or its set.
    path : Path
        Where it lies.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Pixels:
    """An image that lies in a file of many, decoded.

    Attributes
    ----------
    name : str
        As for `ImageFile`; ends in ``.png``.
    pixels : (H, W, 3) uint8
        RGB.
    """

    name: str
    pixels: NDArray[np.uint8]


Item = ImageFile | Pixels


@dataclass(frozen=True)
class Tree:
    """A data set, before classes are chosen and anything is written.

    Attributes
    ----------
    classes : tuple of str
        Class names in the published order, which numbers them from 0; none for an unlabelled set. A
        class may be without images.
    splits : mapping of str to mapping of str to tuple of Item
        Images by split (of `SPLITS`) and class.
    flat : tuple of Item
        Images of an unlabelled set; empty where there are classes.
    facts : mapping of str to object
        What to store with the tree, such as the filter that was used.
    """

    classes: tuple[str, ...] = ()
    splits: Mapping[str, Mapping[str, tuple[Item, ...]]] = field(default_factory=dict)
    flat: tuple[Item, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    def images(self, split: str, label: str) -> tuple[Item, ...]:
        """Return the images of a class in a split; none where it has none."""
        return self.splits.get(split, {}).get(label, ())


@dataclass(frozen=True)
class Option:
    """A choice that a format offers.

    Attributes
    ----------
    default : str
        Value where none is given.
    about : str
        What it decides.
    choices : tuple of str
        Values that are allowed; empty for any.
    """

    default: str
    about: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """How one published data set is read.

    Attributes
    ----------
    title : str
        Its name in full.
    layout : str
        The files that are read, as a picture of the folder.
    read : callable
        Folder and options (all of them, defaults filled in) to a `Tree`.
    options : mapping of str to Option
        What can be chosen.
    flat : bool
        Whether it is an unlabelled set.
    """

    title: str
    layout: str
    read: Callable[[Path, Mapping[str, str]], Tree]
    options: Mapping[str, Option] = field(default_factory=dict)
    flat: bool = False


class Incomplete(Exception):
    """A file that a reader needs is missing; `registry.open_format` adds the layout.

    Attributes
    ----------
    path : Path
        The missing file or folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


def inside(root: Path, *names: str) -> Path:
    """Return `root` itself, or the first folder of these names in it: archives unpack to one."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def need(path: Path) -> Path:
    """Return an existing path.

    Raises
    ------
    Incomplete
        There is nothing at `path`.
    """
    if not path.exists():
        raise Incomplete(path)
    return path


def rows(path: Path, columns: int, *, skip: int = 0, last: bool = False) -> Iterator[list[str]]:
    """Yield the cells of a text file's lines; blank lines are left out.

    Parameters
    ----------
    path : Path
        A UTF-8 file with or without a byte order mark; must exist.
    columns : int
        Cells that each line must have.
    skip : int
        Lines of heading.
    last : bool
        Cut from the end, so that spaces belong to the first cell and not to the last one.

    Raises
    ------
    Incomplete
        There is no such file.
    DataError
        A line has fewer cells, or the file is not UTF-8.
    """
    try:
        lines = need(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"`{path}` is not UTF-8 text ({error}); restore the file") from error
    for number, line in enumerate(lines[skip:], start=skip + 1):
        if not line.strip():
            continue
        text = line.strip()
        cells = text.rsplit(None, columns - 1) if last else text.split(None, columns - 1)
        if len(cells) != columns:
            raise DataError(
                f"line {number} of `{path}` is `{text[:80]}`; expected {columns} values, separated "
                "by spaces: restore the file"
            )
        yield cells


def integer(text: str, path: Path) -> int:
    """Return a whole number of a published file.

    Raises
    ------
    DataError
        It is none.
    """
    try:
        return int(text)
    except ValueError:
        raise DataError(
            f"`{path}` has `{text[:40]}` where a whole number is expected; restore the file"
        ) from None


def lookup(table: Mapping[str, str], key: str, path: Path) -> str:
    """Return what another file of the set says of `key`.

    Raises
    ------
    DataError
        `path`, which the table was read from, does not have it.
    """
    if key not in table:
        raise DataError(f"`{path}` has no entry `{key}`; the files of the set do not fit together")
    return table[key]


def folder_name(label: str) -> str:
    """Return a class name as the name of a folder: ``F/A-18`` becomes ``F-A-18``.

    Raises
    ------
    DataError
        Nothing is left, or the name would be hidden.
    """
    name = label.strip().replace("/", "-").replace("\\", "-")
    if not name or name.startswith("."):
        raise DataError(
            f"the class name {label!r} cannot be the name of a folder; rename the class"
        )
    return name


def relative_name(text: str) -> str:
    """Return a published relative path in its plain form: ``.//a/b.jpg`` becomes ``a/b.jpg``.

    Raises
    ------
    DataError
        It leads out of its folder.
    """
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DataError(
            f"the published list names `{text}`, which lies outside of the data set; "
            "restore the list"
        )
    return path.as_posix()


def labelled(
    classes: Iterable[str],
    entries: Iterable[tuple[str, int, Item]],
    *,
    facts: Mapping[str, object] | None = None,
) -> Tree:
    """Build a labelled tree.

    Parameters
    ----------
    classes : iterable of str
        Class names in the published order.
    entries : iterable of (str, int, Item)
        Split, 0-based class number and image.
    facts : mapping of str to object, optional
        See `Tree`.

    Raises
    ------
    DataError
        Two classes would get one folder, or an image has a class number that does not exist.
    """
    names = tuple(folder_name(label) for label in classes)
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise DataError(
                f"the classes `{seen[name.casefold()]}` and `{name}` would have one folder; "
                "rename one in the published list"
            )
        seen[name.casefold()] = name
    splits: dict[str, dict[str, list[Item]]] = {}
    for split, number, item in entries:
        if not 0 <= number < len(names):
            raise DataError(
                f"`{item.name}` has class number {number} (counted from 0), but there are "
                f"{len(names)} classes; the files of the set do not fit together"
            )
        splits.setdefault(split, {}).setdefault(names[number], []).append(item)
    return Tree(
        classes=names,
        splits={
            split: {label: tuple(items) for label, items in found.items()}
            for split, found in splits.items()
        },
        facts=facts or {},
    )
