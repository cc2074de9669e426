"""Outliers to train with must be none of what is classified, nor of what is evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from oodserve.errors import DataError


def refuse_leaks(
    outliers: Sequence[Path],
    folder: Path,
    *,
    inside: Sequence[Path],
    outside: Sequence[Path],
    classes: Sequence[str],
) -> None:
    """Refuse an outlier folder that holds classes of the model or images used elsewhere.

    Parameters
    ----------
    outliers : sequence of Path
        Its image files.
    folder : Path
        The folder itself.
    inside : sequence of Path
        In-distribution images of all splits.
    outside : sequence of Path
        Out-of-distribution images that are evaluated on.
    classes : sequence of str
        Names of the classes, held-out ones included.

    Raises
    ------
    DataError
        A folder in it is named like a class, in whatever case; or a file has the content of one
        of the images. The same picture encoded anew is not noticed.
    """
    _refuse_class_names(outliers, folder, classes)
    for paths, use in ((inside, "classified"), (outside, "evaluated on")):
        for outlier, other in same_content(outliers, paths):
            raise DataError(
                f"the outlier `{outlier}` has the content of `{other}`, which is {use}; "
                f"remove it from `{folder}`"
            )


def _refuse_class_names(outliers: Sequence[Path], folder: Path, classes: Sequence[str]) -> None:
    by_name = {label.casefold(): label for label in classes}
    for path in outliers:
        for part in path.relative_to(folder).parts[:-1]:
            if part.casefold() in by_name:
                raise DataError(
                    f"the outlier folder `{folder}` holds a folder `{part}`, named like the class "
                    f"`{by_name[part.casefold()]}`; outliers must be none of the classes, learned "
                    "or held out: remove it"
                )


def same_content(first: Sequence[Path], second: Sequence[Path]) -> Iterable[tuple[Path, Path]]:
    """Yield pairs of equal files; only files of equal size are read."""
    by_size: dict[int, list[Path]] = {}
    for path in second:
        by_size.setdefault(path.stat().st_size, []).append(path)
    digests: dict[int, dict[bytes, Path]] = {}
    for path in first:
        size = path.stat().st_size
        if size in by_size and size not in digests:
            digests[size] = {_digest(other): other for other in by_size[size]}
        if size in digests:
            other = digests[size].get(_digest(path))
            if other is not None:
                yield path, other


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
