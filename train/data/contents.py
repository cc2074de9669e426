"""What can be said of pictures without decoding them all: fingerprints, and readable headers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from oodserve.errors import DataError, ImageError
from oodserve.images import check_header
from train.data.sources import ImageFiles, ImageSource, LabelledImages

READ_IN_FULL = 4096
"""Files whose contents go into a fingerprint; of a larger set, as many, evenly spread."""

_DRAWN = 16


def content_fingerprint(source: ImageSource) -> str:
    """Return a SHA-256 that tells a source from others of the same size.

    Of files: the paths below their common folder, the sizes in bytes, and the contents of up to
    `READ_IN_FULL` of them. Of any other source: the pixels of 16 pictures, evenly spread.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    if isinstance(source, ImageFiles):
        try:
            return _files_fingerprint(source.paths)
        except OSError as error:
            raise DataError(f"cannot read an outlier ({error}); restore or remove it") from error
    digest = hashlib.sha256(str(len(source)).encode())
    for index in _spread(len(source), _DRAWN):
        image = source.read(index)
        digest.update(f"{image.size}".encode())
        digest.update(np.asarray(image).tobytes())
    return digest.hexdigest()


def refuse_unreadable(sets: Iterable[LabelledImages]) -> None:
    """Look at the header of every file of these sets, so that training does not end at one.

    A file that is whole in its header and damaged further on is not noticed.

    Raises
    ------
    DataError
        A file cannot be read or is no image; the message names it.
    """
    for images in sets:
        if not isinstance(images.source, ImageFiles):
            continue
        for path in images.source.paths:
            try:
                check_header(path.read_bytes())
            except OSError as error:
                raise DataError(f"cannot read `{path}` ({error}); restore or remove it") from error
            except ImageError as error:
                raise DataError(
                    f"`{path}` of the {images.name} images: {error}; replace or remove the file"
                ) from error


def _files_fingerprint(paths: tuple[Path, ...]) -> str:
    folder = os.path.commonpath([path.parent for path in paths])
    digest = hashlib.sha256()
    read = set(_spread(len(paths), READ_IN_FULL))
    for index, path in enumerate(paths):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(f"\0{path.stat().st_size}\0".encode())
        if index in read:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` indices below `count`, the first and the last among them."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))})
