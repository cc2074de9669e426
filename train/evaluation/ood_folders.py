"""Out-of-distribution sets, the run's own and given ones, checked to be that."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from oodserve.errors import DataError
from oodserve.folders import list_images
from train.data.folders import Splits
from train.data.leaks import same_content
from train.data.sources import ImageFiles, ImageSource

NAMED = 5
"""Files that a message names; the rest it counts."""


def open_ood_folders(
    folders: Mapping[str, Path], splits: Splits, *, background: tuple[int, int, int]
) -> dict[str, ImageSource]:
    """Open folders of outliers and compare their contents with the images of the run.

    Parameters
    ----------
    folders : mapping of str to Path
        Set name to folder.
    splits : Splits
        Of the run.
    background : tuple of int
        RGB colour that shows through transparent pixels.

    Returns
    -------
    dict of str to ImageSource
        In the order given.

    Raises
    ------
    DataError
        A folder has no images; its name is that of a set of the run; or some of its files have the
        content of in-distribution images, or of outliers that were trained with. The same picture
        encoded anew is not noticed.
    """
    used = _used(splits)
    found: dict[str, ImageSource] = {}
    for name, folder in folders.items():
        if name in splits.ood:
            raise DataError(
                f"the data of the run have an out-of-distribution set `{name}` already; give "
                f"`{folder}` another name"
            )
        paths = list_images(folder)
        _refuse_overlap(name, folder, paths, used)
        found[name] = ImageFiles(tuple(paths), background)
    return found


def refuse_overlaps(splits: Splits) -> None:
    """Compare the contents of the run's own out-of-distribution sets with its other images.

    Parameters
    ----------
    splits : Splits
        Of the run; sets that are not made of files are left out.

    Raises
    ------
    DataError
        Some files of a set have the content of in-distribution images, or of outliers that were
        trained with. The same picture encoded anew is not noticed.
    """
    used = _used(splits)
    for name, source in splits.ood.items():
        if isinstance(source, ImageFiles):
            folder = Path(os.path.commonpath([path.parent for path in source.paths]))
            _refuse_overlap(name, folder, source.paths, used)


def _used(splits: Splits) -> dict[str, list[Path]]:
    """Return what each of the run's images is for, to its files."""
    sources: dict[str, ImageSource | None] = {
        "train": splits.train.source,
        "validation": splits.validation.source,
        "calibration": None if splits.calibration is None else splits.calibration.source,
        "test": splits.test.source,
        "outliers": splits.outliers,
    }
    return {
        use: list(source.paths) for use, source in sources.items() if isinstance(source, ImageFiles)
    }


def _refuse_overlap(
    name: str, folder: Path, paths: Sequence[Path], used: Mapping[str, list[Path]]
) -> None:
    pairs = [
        f"`{path}` is `{other}` ({use})"
        for use, others in used.items()
        for path, other in same_content(paths, others)
    ]
    if pairs:
        more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
        raise DataError(
            f"the out-of-distribution set `{name}` holds images of the run itself: "
            f"{'; '.join(pairs[:NAMED])}{more}; remove them from `{folder}`"
        )
