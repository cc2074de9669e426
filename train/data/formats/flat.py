"""Sets without labels: whatever images lie in the folder that the archive unpacks to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from oodserve.errors import DataError
from oodserve.folders import list_images
from train.data.formats.tree import Format, ImageFile, Incomplete, Option, Tree


def _reader(*folders: str) -> Callable[[Path, Mapping[str, str]], Tree]:
    """Return a reader that takes the first of these folders that exists."""

    def read(root: Path, options: Mapping[str, str]) -> Tree:
        found = [root / name for name in folders if (root / name).is_dir()]
        if not found:
            raise Incomplete(root / folders[0])
        return _everything(found[0])

    return read


def _everything(folder: Path) -> Tree:
    files = list_images(folder)
    return Tree(flat=tuple(ImageFile(path.relative_to(folder).as_posix(), path) for path in files))


_PLACES = {"val": ("val_256", "val_large"), "test": ("test_256", "test_large"),
           "train": ("data_256_standard", "data_256", "data_large_standard")}  # fmt: skip


def _read_places(root: Path, options: Mapping[str, str]) -> Tree:
    return _reader(*_PLACES[options["part"]])(root, options)


def _read_lsun(root: Path, options: Mapping[str, str]) -> Tree:
    bases = sorted(path.parent for path in root.rglob("data.mdb"))
    if bases:
        raise DataError(
            f"`{bases[0]}` is an LMDB data base, which is not read here; export its images with "
            "`data.py export` of the LSUN tools and give the folder of images"
        )
    return _everything(root)


PLACES365 = Format(
    "Places365",
    """\
    val_256/Places365_val_00000001.jpg      (or val_large)
    test_256/*.jpg                          (or test_large)
    data_256/a/airfield/00000001.jpg        (or data_256_standard, data_large_standard)""",
    _read_places,
    {"part": Option("val", "which images", tuple(_PLACES))},
    flat=True,
)
LSUN = Format(
    "LSUN, exported from LMDB",
    "    **/*.webp, *.jpg or *.png               as `data.py export` writes them",
    _read_lsun,
    flat=True,
)
TEXTURES = Format(
    "Describable Textures Dataset",
    "    dtd/images/CLASS/*.jpg                  (or images/CLASS/*.jpg)",
    _reader("dtd/images", "images"),
    flat=True,
)
INATURALIST = Format(
    "iNaturalist",
    """\
    images/*.jpg                            the selection of 10,000 plants for OOD detection
    2021_valid/CLASS/*.jpg                  (or 2021_train, 2021_train_mini)""",
    _reader("images", "2021_valid", "2021_train_mini", "2021_train"),
    flat=True,
)
SUN = Format(
    "SUN",
    """\
    images/*.jpg                            the selection of 10,000 scenes for OOD detection
    SUN397/a/abbey/*.jpg""",
    _reader("images", "SUN397"),
    flat=True,
)
NINCO = Format(
    "NINCO",
    "    NINCO_OOD_classes/CLASS/*.jpg           (or NINCO/NINCO_OOD_classes)",
    _reader("NINCO_OOD_classes", "NINCO/NINCO_OOD_classes"),
    flat=True,
)
OPENIMAGE_O = Format(
    "OpenImage-O",
    "    images/*.jpg                            (or openimage_o/images, openimage_o, test)",
    _reader("images", "openimage_o/images", "openimage_o", "test"),
    flat=True,
)
