"""Waterbirds and CelebA: classes with groups that correlate with them, kept as folders."""

from __future__ import annotations

import csv
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
    integer,
    labelled,
    lookup,
    need,
    relative_name,
    rows,
)

_SPLITS = {"0": "train", "1": "validation", "2": "test"}
_COLUMNS = ("img_filename", "y", "split", "place")


def read_waterbirds(root: Path, options: Mapping[str, str]) -> Tree:
    """Read Waterbirds; the background is a folder below the class: ``waterbird/on_land/*``.

    Raises
    ------
    DataError
        The table lacks a column, or has a class, split or place that does not exist.
    Incomplete
        A file is missing.
    """
    root = inside(root, "waterbird_complete95_forest2water2")
    path = need(root / "metadata.csv")
    return labelled(["landbird", "waterbird"], _waterbirds(root, path))


def _waterbirds(root: Path, path: Path) -> Iterator[tuple[str, int, Item]]:
    with path.open(newline="", encoding="utf-8") as stream:
        table = csv.DictReader(stream)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise DataError(f"`{path}` has no column `{missing[0]}`; restore the file")
        for row in table:
            place = {"0": "on_land", "1": "on_water"}.get(row["place"])
            if row["split"] not in _SPLITS or place is None:
                raise DataError(
                    f"`{path}` has split `{row['split']}` and place `{row['place']}`; expected 0, "
                    "1 or 2 and 0 or 1"
                )
            file = relative_name(row["img_filename"])
            item = ImageFile(f"{place}/{file.replace('/', '__')}", root / file)
            yield _SPLITS[row["split"]], integer(row["y"], path), item


def read_celeba(root: Path, options: Mapping[str, str]) -> Tree:
    """Read CelebA with one attribute as the class and another as the group.

    Classes are ``not_ATTRIBUTE`` and ``ATTRIBUTE``; the group is a folder below them.

    Raises
    ------
    DataError
        An attribute is unknown, or the files do not fit together.
    Incomplete
        A file is missing.
    """
    root = inside(root, "celeba")
    path = root / "list_attr_celeba.txt"
    names = need(path).read_text(encoding="utf-8").splitlines()[1:2]
    known = names[0].split() if names else []
    target, group = options["attribute"], options["group"]
    for name in (target, group):
        if name not in known:
            raise DataError(f"`{name}` is none of the attributes in `{path}`: {', '.join(known)}")
    columns = (known.index(target), known.index(group))
    return labelled([f"not_{target}", target], _celeba(root, path, columns, group))


def _celeba(
    root: Path, path: Path, columns: tuple[int, int], group: str
) -> Iterator[tuple[str, int, Item]]:
    parts_path = root / "list_eval_partition.txt"
    parts = dict(rows(parts_path, 2))
    folder = need(root / "img_align_celeba")
    for file, text in rows(path, 2, skip=2):
        flags = text.split()
        if len(flags) <= max(columns) or not set(flags) <= {"1", "-1"}:
            raise DataError(f"`{path}` has no 1 or -1 for each attribute of `{file}`; restore it")
        part = lookup(parts, file, parts_path)
        if part not in _SPLITS:
            raise DataError(f"`{parts_path}` has `{part}` for `{file}`; expected 0, 1 or 2")
        label, member = (flags[column] == "1" for column in columns)
        name = f"{'' if member else 'not_'}{group}/{relative_name(file)}"
        yield _SPLITS[part], int(label), ImageFile(name, folder / file)


WATERBIRDS = Format(
    "Waterbirds",
    """\
    waterbird_complete95_forest2water2/metadata.csv     img_filename,y,split,place and others
    waterbird_complete95_forest2water2/FOLDER/FILE.jpg""",
    read_waterbirds,
)
CELEBA = Format(
    "CelebA",
    """\
    celeba/list_attr_celeba.txt             count, names of the attributes, FILE and 1 or -1 each
    celeba/list_eval_partition.txt          FILE 0 (training), 1 (validation) or 2 (test)
    celeba/img_align_celeba/000001.jpg""",
    read_celeba,
    {
        "attribute": Option("Blond_Hair", "attribute that is the class"),
        "group": Option("Male", "attribute that is the group, a folder below the class"),
    },
)
