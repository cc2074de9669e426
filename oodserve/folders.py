"""Folders of images: which files count, in what order, and their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from oodserve.errors import DataError
from oodserve.images import SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """Return every image file below `folder`, sorted by path; hidden files are left out.

    Raises
    ------
    DataError
        The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"`{folder}` is not a folder; give a folder of images")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise DataError(f"no image in `{folder}`; files ending in {', '.join(SUFFIXES)} are read")
    return paths


def fingerprint(paths: Sequence[Path], root: Path) -> str:
    """Return the SHA-256 over (path relative to `root`, content) of the files, in sorted order.

    Equal folders have equal fingerprints wherever they lie; a renamed, changed, added or missing
    file changes it.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
