"""Writing a split that was drawn at random as folders, so that other commands can take it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from oodserve.errors import DataError
from train.data.sources import ImageFiles, LabelledImages


def write_split(images: LabelledImages, to: Path) -> int:
    """Copy labelled files to ``to/CLASS/NUMBER-NAME`` and return how many there are.

    The number keeps files of one name from different folders apart.

    Parameters
    ----------
    images : LabelledImages
        Of files.
    to : Path
        Must not exist; appears whole or not at all.

    Raises
    ------
    DataError
        `to` exists already, or the images are not files.
    """
    if to.exists():
        raise DataError(f"`{to}` exists already and is not overwritten; give another folder")
    if not isinstance(images.source, ImageFiles):
        raise DataError(f"the split `{images.name}` is not made of files")
    to.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        for number, (path, label) in enumerate(
            zip(images.source.paths, images.labels, strict=True)
        ):
            folder = staging / images.classes[int(label)]
            folder.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / f"{number:06d}-{path.name}")
        staging.chmod(0o755)
        staging.rename(to)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(images.labels)
